"""Train the bundle that ships, stage by stage: `python -m triage.training.reference --help`.

Every stage is seeded and resumable; run again after an interruption and it goes on.
"""

from __future__ import annotations

import argparse
import pickle
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from triage.inference.networks import choose_device, load_networks
from triage.nets.bundle import find_bundle
from triage.nets.mobilenet_v2 import split
from triage.nets.slice_net import SHARED, SIZE, JointSliceNet
from triage.simulate.protocol import LATEST
from triage.simulate.protocol import load as load_protocol
from triage.training import (
    cache,
    features,
    localiser,
    members,
    mistakes,
    sequence,
    slices,
    studies,
    trunk,
    volume,
)
from triage.training.checkpoint import mix, trained_weights
from triage.training.checkpoint import save as save_weights
from triage.training.drafts import load_draft, score_sets, write_draft
from triage.training.finish import finish
from triage.training.folds import Split, make_split
from triage.training.layout import Patient
from triage.training.recipe import (
    AGAIN,
    LOCALISER_AGAIN,
    LOCALISER_MIX,
    SHIPPED,
    VOLUME_AGAIN,
    VOLUME_DEEP,
    VOLUME_FOUND,
    VOLUME_ROUNDS,
    Recipe,
    choosers,
    learners,
    localiser_weights,
    people,
    read_localiser,
    read_volume,
    say,
    step,
    trunk_weights,
)
from triage.training.start import fresh_tail
from triage.training.volume_cases import find_organs
from triage.types import TARGETS, Target

Net = TypeVar("Net", bound=nn.Module)


def make_judged(work: Path, data: Path | None, count: int | None) -> None:
    """Patients of the frozen test protocol: all, or the first `count`."""
    count = load_protocol(LATEST).patients if count is None else count
    made = cache.build_judged(work / "sets" / "judged", LATEST, count, data)
    say(f"judged set: {made} patients made")


def make_sets(work: Path, recipe: Recipe, data: Path | None) -> None:
    for name, s in recipe.sets.items():
        made = cache.build(
            work / "sets" / name,
            s.people,
            s.seed,
            variants=s.variants,
            enriched=s.enriched,
            parametric_share=s.parametric_share if data else 1.0,
            data=data,
            backgrounds=s.backgrounds,
            plain=s.plain,
            mix=s.mix,
        )
        say(f"set {name}: {made} patients made")


def samples(
    work: Path, recipe: Recipe, count: int
) -> tuple[list[cache.Entry], list[slices.Sample]]:
    """Training slices of the first `count` persons; kept, because finding them takes minutes."""
    path = work / f"samples_{count}.pkl"
    found = people(work, recipe, 0, count)
    if path.exists():
        names, known = pickle.loads(path.read_bytes())  # noqa: S301 - our own folder  # nosec B301
        if names == [e.folder.name for e in found]:
            return found, known
    known = [s for i, e in enumerate(found) for s in slices.samples_of(i, e)]
    path.write_bytes(pickle.dumps(([e.folder.name for e in found], known)))
    return found, known


def train_members(work: Path, recipe: Recipe, targets: Sequence[Target] = TARGETS) -> None:
    """Each target's members on cached trunk features, one a fold."""
    own, known = samples(work, recipe, recipe.trains)
    joint = JointSliceNet()
    joint.load_state_dict(trained_weights(trunk_weights(work)))
    joint.eval()
    shared = split(joint.net, SHARED)[0]
    where = _split(own, recipe.folds)
    for i, target in enumerate(TARGETS):
        out = work / f"members_{target.value}.pt"
        if target not in targets or out.exists():
            continue
        chosen = features.choose([s for s in known if s.target is target], seed=i)
        say(f"{target.value}: {len(chosen)} slices, {sum(s.label for s in chosen)} with lesion")
        device = choose_device("auto")
        cached = features.build(
            work / "features", shared, own, chosen, size=SIZE, seed=7, device=device, tell=step
        )
        tails = members.train_members(
            target.value,
            cached,
            where,
            lambda k, t=target: fresh_tail(  # type: ignore[misc]
                joint.net, SHARED, t, joint.heads, joint.pooling
            ),
            work / "members" / target.value,
            members.Recipe(epochs=recipe.epochs),
            seed=i,
            log=say,
        )
        save_weights(out, {"members": [tail.state_dict() for tail in tails]})


def _split(people: Sequence[cache.Entry], folds: int) -> Split:
    return make_split([_patient(e) for e in people], TARGETS, folds=folds, calibration=0, seed=5)


def train_sequence(work: Path, recipe: Recipe) -> None:
    """Sequence heads on what the out-of-fold members saw; kept where they beat plain pooling."""
    where = _split(learners(work, recipe), recipe.folds)

    def fold_of(target: Target, person: str) -> int | None:
        return next((k for k in range(recipe.folds) if where.holds_out(person, k)), None)

    write_draft(work, recipe, heads=False)
    seen = studies.collect(
        learners(work, recipe), load_draft(work), fold_of, work / "sequence/seen", log=say
    )
    heads, compared = sequence.train_heads(seen, work / "sequence", log=say)
    sequence.save_heads(work / "sequence.pt", heads, compared)


def _patient(entry: cache.Entry) -> Patient:
    """What the folds need to know of a cached patient."""
    grades = {t: entry.grade(t) for t in TARGETS}
    injured = any(grades.values())
    return Patient(entry.patient_id, grades, injured, entry.person, True, None, ())


def train_localiser(a: Namespace, recipe: Recipe) -> None:
    own = people(a.work, recipe, 0, recipe.early)
    localiser.train(own, a.work, steps=recipe.steps["localiser"], log=say)


def _own_or(given: Net | None, own: Path, read: Callable[[Path], Net]) -> Net:
    """What the work folder has trained, else what its base gives."""
    return read(own) if given is None or own.exists() else given


def train_localiser_again(a: Namespace, recipe: Recipe) -> None:
    """A warm restart from the first round, or from the base's localiser; ends between both."""
    own, first = people(a.work, recipe, 0, recipe.early), a.work / "localiser.pt"
    base = load_networks(recipe.base, "cpu") if recipe.base else None
    start = _own_or(base.localiser if base else None, first, read_localiser)
    localiser.train(
        own,
        a.work,
        steps=recipe.steps[LOCALISER_AGAIN],
        seed=2,
        start=start.state_dict(),
        name=LOCALISER_AGAIN,
        log=say,
    )
    mix(a.work / f"{LOCALISER_AGAIN}.pt", start.state_dict(), LOCALISER_MIX)


def train_trunk(a: Namespace, recipe: Recipe) -> None:
    """From ImageNet, on the persons that were simulated first."""
    own = samples(a.work, recipe, recipe.early)
    trunk.train_trunk(*own, a.weights, a.work, steps=recipe.steps["trunk"], log=say)


def train_trunk_again(a: Namespace, recipe: Recipe) -> None:
    """On all persons that train, from the first round's weights; hard targets twice."""
    trunk.train_trunk(
        *samples(a.work, recipe, recipe.trains),
        None,
        a.work,
        steps=recipe.steps[AGAIN],
        batch=2 * len(trunk.HARD_TWICE),
        seed=3,
        start=a.work / "trunk.pt",
        turns=trunk.HARD_TWICE,
        name=AGAIN,
        log=say,
    )


def train_volume(a: Namespace, recipe: Recipe) -> None:
    volume.train(
        learners(a.work, recipe),
        a.work,
        steps=recipe.steps["volume"],
        held=choosers(a.work, recipe),
        validate_every=recipe.validate_every,
        log=say,
    )


def train_volume_round(a: Namespace, recipe: Recipe, name: str) -> None:
    """A later round of the volume net, on the mistakes of the one before it."""
    own, held = people(a.work, recipe, 0, recipe.early), choosers(a.work, recipe)
    base = load_networks(recipe.base, "cpu") if recipe.base else None
    before = a.work / f"{VOLUME_ROUNDS[VOLUME_ROUNDS.index(name) - 1]}.pt"
    start = _own_or(base.volume if base else None, before, read_volume)
    found = name in (VOLUME_FOUND, VOLUME_DEEP)
    if found:
        finder = _own_or(
            base.localiser if base else None, localiser_weights(a.work), read_localiser
        )
        find_organs([*own, *held], finder.eval(), say)
    mistakes.train_again(
        own,
        a.work,
        start=start.state_dict(),
        steps=recipe.steps[name],
        name=name,
        found=found,
        deep=name == VOLUME_DEEP,
        held=held,
        validate_every=recipe.validate_every,
        log=say,
    )


def score(a: Namespace, recipe: Recipe) -> None:
    write_draft(a.work, recipe)
    score_sets(a.work, recipe)


STAGES: dict[str, Callable[[Namespace, Recipe], None]] = {
    "sets": lambda a, recipe: make_sets(a.work, recipe, a.data),
    "localiser": train_localiser,
    LOCALISER_AGAIN: train_localiser_again,
    "trunk": train_trunk,
    AGAIN: train_trunk_again,
    "members": lambda a, recipe: train_members(
        a.work, recipe, [Target(name) for name in a.targets]
    ),
    "volume": train_volume,
    VOLUME_AGAIN: lambda a, recipe: train_volume_round(a, recipe, VOLUME_AGAIN),
    VOLUME_FOUND: lambda a, recipe: train_volume_round(a, recipe, VOLUME_FOUND),
    VOLUME_DEEP: lambda a, recipe: train_volume_round(a, recipe, VOLUME_DEEP),
    "sequence": lambda a, recipe: train_sequence(a.work, recipe),
    "judged": lambda a, _: make_judged(a.work, a.data, a.judged),
    "score": score,
    "finish": lambda a, recipe: finish(a.work, recipe, a.out, a.version, a.note),
}


def main(arguments: Sequence[str] | None = None, recipe: Recipe = SHIPPED) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", default=[*STAGES], help=f"of {', '.join(STAGES)}")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and sets go here")
    parser.add_argument("--data", type=Path, help="folder with anatomy/ and ct/ backgrounds")
    parser.add_argument("--base", help="bundle that gives what the work folder has not trained")
    parser.add_argument("--weights", type=Path, help="ImageNet weights (safetensors or .pth)")
    names = [t.value for t in TARGETS]
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=names,
        default=names,
        help="of the members: several processes may share the work",
    )
    parser.add_argument(
        "--without", nargs="+", default=[], help="backgrounds whose persons train nothing"
    )
    parser.add_argument("--share", type=float, help="of steps and epochs, for a quick variant")
    parser.add_argument("--judged", type=int, help="patients of the test protocol (default: all)")
    parser.add_argument("--out", type=Path, default=Path("models/reference"))
    parser.add_argument("--version", default="0.2.0")
    parser.add_argument("--note", action="append", default=[], help="sentence for the model card")
    a = parser.parse_args(arguments)
    for stage in a.stages:
        if stage not in STAGES:
            parser.error(f"unknown stage {stage!r}: expected some of {', '.join(STAGES)}")
    if a.base:
        recipe = replace(recipe, base=find_bundle(a.base))
    unknown = set(a.without) - {b for s in recipe.sets.values() for b in s.backgrounds}
    if unknown:
        parser.error(f"--without: no set has the background {', '.join(sorted(unknown))}")
    recipe = replace(recipe, without=tuple(a.without))
    if a.share is not None:
        recipe = recipe.shortened(a.share)
    for stage in a.stages:
        say(f"stage {stage}")
        STAGES[stage](a, recipe)


if __name__ == "__main__":
    main()
