"""Train the bundle that ships, stage by stage: `python -m triage.training.reference --help`.

Every stage is seeded and resumable; run again after an interruption and it goes on.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triage.decision.fit import fit_table
from triage.decision.scores import from_rows
from triage.inference.networks import Networks, choose_device
from triage.nets.bundle import find_bundle, read_manifest, reference
from triage.nets.localiser import Localiser
from triage.nets.mobilenet_v2 import split
from triage.nets.slice_net import SHARED, SIZE, JointSliceNet, SliceEnsembles
from triage.nets.volume_net import VolumeNet
from triage.simulate.protocol import LATEST
from triage.simulate.protocol import load as load_protocol
from triage.training import (
    assemble,
    cache,
    features,
    localiser,
    members,
    scoring,
    sequence,
    slices,
    studies,
    trunk,
    volume,
)
from triage.training.card import PUBLISHED_AUC, model_card
from triage.training.checkpoint import read as read_weights
from triage.training.checkpoint import save as save_weights
from triage.training.checkpoint import trained_weights
from triage.training.evaluation.judged import judge_with_bundle
from triage.training.evaluation.prevalence import natural
from triage.training.evaluation.write import write_evaluation
from triage.training.folds import Split, make_split
from triage.training.layout import Patient
from triage.training.start import fresh_tail
from triage.types import TARGETS, Target

DATA = [
    "Simulated patients only: parametric people, label maps of two real people and two real CTs "
    "without injury as backgrounds, with simulated injuries, look-alikes, contrast phases and "
    "scanners. No image of an injured real patient was used.",
    "Simulated injuries are simpler than real ones: expect less on real patients.",
    "Fusion was fitted on persons that trained nothing; they stopped trainings early, too.",
]
ATTRIBUTION = [
    "Anatomies s0327 (training), s0328 (calibration), s0011 (test): TotalSegmentator (CC BY 4.0).",
    "CT plain_trunk_3mm: TotalSegmentator test files (Apache-2.0).",
    "CT portal_abdomen_b: TCIA TCGA-COAD (CC BY 3.0).",
]


@dataclass(frozen=True)
class Set:
    """One set of simulated patients. Sets share no person; names are those of `cache.build`."""

    people: int
    seed: int
    variants: int
    enriched: float
    parametric_share: float
    backgrounds: tuple[str, ...]
    plain: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """What a bundle is made from.

    Persons of the set `train` by number: the first `learn` train, the others choose (early stops,
    fusion). The localiser and the trunk need fewer, `early`, so that they can begin while patients
    are still being made. `epochs` of the members, at most.
    """

    sets: Mapping[str, Set]
    learn: int
    early: int
    folds: int
    epochs: int
    steps: Mapping[str, int]
    validate_every: int  # steps of the volume net


# What the shipped bundle was made from. Calibration anatomies train nothing; the frozen test
# protocol is judged on s0011, and the CTs portal_abdomen and portal_slab train nothing either.
SETS = {
    "train": Set(200, 501, 3, 0.35, 0.5, ("s0327", "plain_trunk_3mm", "portal_abdomen_b"), 0.07),
    "cal": Set(150, 502, 1, 0.6, 0.7, ("s0328",)),
    "well": Set(100, 503, 1, 0.0, 0.7, ("s0328",)),
}
STEPS = {"localiser": 1500, "trunk": 3000, "volume": 4000}
SHIPPED = Recipe(SETS, learn=170, early=110, folds=4, epochs=12, steps=STEPS, validate_every=1000)


def make_judged(work: Path, data: Path | None, count: int | None) -> None:
    """Patients of the frozen test protocol: all, or the first `count`."""
    count = load_protocol(LATEST).patients if count is None else count
    made = cache.build_judged(work / "sets" / "judged", LATEST, count, data)
    say(f"judged set: {made} patients made")


def say(text: str) -> None:
    print(text, flush=True)


def step(name: str, share: float) -> None:
    """Progress of a long stage."""
    say(f"{name} ({share:.0%})")


def entries(work: Path, name: str) -> list[cache.Entry]:
    found = cache.entries(work / "sets" / name)
    if not found:
        raise SystemExit(f"Expected simulated patients in {work / 'sets' / name}: run stage sets.")
    return found


def people(work: Path, recipe: Recipe, first: int, beyond: int) -> list[cache.Entry]:
    """Patients of the training persons `first` to `beyond` - 1."""
    wanted = {f"p{i:05d}" for i in range(first, beyond)}
    found = [e for e in entries(work, "train") if e.person in wanted]
    if len(found) != (beyond - first) * recipe.sets["train"].variants:
        raise SystemExit(f"Expected all patients of {beyond - first} persons, got {len(found)}")
    return found


def learners(work: Path, recipe: Recipe) -> list[cache.Entry]:
    """Patients that train."""
    return people(work, recipe, 0, recipe.learn)


def choosers(work: Path, recipe: Recipe) -> list[cache.Entry]:
    """Patients that train nothing, but stop trainings and weigh branches."""
    return people(work, recipe, recipe.learn, recipe.sets["train"].people)


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


def train_members(work: Path, recipe: Recipe) -> None:
    """Each target's members on cached trunk features, one a fold."""
    own, known = samples(work, recipe, recipe.learn)
    joint = JointSliceNet()
    joint.load_state_dict(trained_weights(work / "trunk.pt"))
    joint.eval()
    shared = split(joint.net, SHARED)[0]
    where = _split(own, recipe.folds)
    for i, target in enumerate(TARGETS):
        out = work / f"members_{target.value}.pt"
        if out.exists():
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
    seen = studies.collect(learners(work, recipe), load_draft(work), fold_of, log=say)
    heads, compared = sequence.train_heads(seen, work / "sequence", log=say)
    sequence.save_heads(work / "sequence.pt", heads, compared)


def _patient(entry: cache.Entry) -> Patient:
    """What the folds need to know of a cached patient."""
    grades = {t: entry.grade(t) for t in TARGETS}
    injured = any(grades.values())
    return Patient(entry.patient_id, grades, injured, entry.person, True, None, ())


def load_trained(work: Path, folds: int) -> tuple[Localiser, SliceEnsembles, VolumeNet]:
    """The trained networks of a work folder."""
    find, whole, joint = Localiser(), VolumeNet(), JointSliceNet()
    for net, name in ((find, "localiser"), (whole, "volume"), (joint, "trunk")):
        net.load_state_dict(trained_weights(work / f"{name}.pt"))
    ensembles = SliceEnsembles(folds, pooling=joint.pooling)
    ensembles.trunk.load_state_dict(split(joint.net, SHARED)[0].state_dict())
    for target in TARGETS:
        trained = read_weights(work / f"members_{target.value}.pt")["members"]
        for tail, weights in zip(ensembles.of(target), trained, strict=True):
            tail.load_state_dict(weights)
    for trained in (find, ensembles, whole):
        trained.eval().requires_grad_(False)
    return find, ensembles, whole


def write_draft(work: Path, recipe: Recipe, *, heads: bool = True) -> Path:
    """A bundle with neutral cutoffs: what the calibration patients are scored with."""
    find, ensembles, whole = load_trained(work, recipe.folds)
    return assemble.write(
        work / "draft",
        version="0",
        localiser=find,
        slices=ensembles,
        volume=whole,
        sequence=sequence.load_heads(work / "sequence.pt") if heads else None,
        cutoffs=assemble.neutral_table(),
        provenance={},
        card="Draft: not calibrated.",
        extra={},
    )


SCORED = ("choose", "cal", "well", "judged")


def scored_set(work: Path, recipe: Recipe, name: str) -> list[cache.Entry]:
    return choosers(work, recipe) if name == "choose" else entries(work, name)


def score_sets(work: Path, recipe: Recipe) -> None:
    nets = load_draft(work)
    for name in SCORED:
        own = scored_set(work, recipe, name)
        scoring.score_all(own, nets, work / "scores" / f"{name}.csv", log=say)


def load_draft(work: Path) -> Networks:
    from triage.inference.networks import load_networks

    return load_networks(work / "draft", "auto")


def finish(work: Path, recipe: Recipe, out: Path, version: str) -> None:
    """Cutoffs from the calibration sets, metrics from the test set, card, bundle."""
    fitted = fit_table(
        from_rows([*_scores(work, "cal"), *_scores(work, "well")]),
        calibrated_on="simulated",
        prevalence=natural(),
        out_of_fold=from_rows(_scores(work, "choose")),
    )
    table = fitted.cutoffs
    judged = judge_with_bundle(from_rows(_scores(work, "judged")), table)
    metrics = write_evaluation(
        work / "evaluation",
        judged,
        natural(),
        {
            "cutoffs": table.to_dict(),
            "calibration": {
                "patients": fitted.patients,
                "healthy": fitted.healthy,
                "healthy_means": fitted.healthy_means,
                "positives": {t.value: n for t, n in fitted.positives.items()},
            },
            "fusion": {t.value: text for t, text in fitted.fusion.items()},
            "sequence_heads": sequence.said(work / "sequence.pt"),
            "scored": f"on the first {len(entries(work, 'judged'))} patients of the frozen test"
            f" protocol {LATEST}: seeds and anatomies that trained nothing",
            "localiser_dice": assemble.mean_dice(work / "scores/judged_dice.csv"),
            "published_auc": PUBLISHED_AUC,
            **measured_beside(work),
        },
    )
    provenance: dict[str, Any] = {
        "command": "python -m triage.training.reference",
        "sets": {k: vars(v) for k, v in recipe.sets.items()},
        "train_patients": len(entries(work, "train")),
        "persons": {
            "train": recipe.learn,
            "localiser and trunk": recipe.early,
            "choose": recipe.sets["train"].people - recipe.learn,
        },
        "steps": dict(recipe.steps),
        "folds": recipe.folds,
        "initial_weights": "MobileNetV2 1.0 224, ImageNet (Apache-2.0)",
        "data": DATA,
        "attribution": ATTRIBUTION,
    }
    find, ensembles, whole = load_trained(work, recipe.folds)
    card = model_card("reference", version, metrics, provenance)
    assemble.write(
        out,
        version=version,
        localiser=find,
        slices=ensembles,
        volume=whole,
        sequence=sequence.load_heads(work / "sequence.pt"),
        cutoffs=table,
        provenance=provenance,
        card=card,
        extra={
            f"evaluation/{name}": (work / "evaluation" / name).read_bytes()
            for name in ("metrics.json", "index.html")
        },
    )
    say(f"wrote {reference(find_bundle(out))} {read_manifest(out).version}")


# Figures of commands of their own, left in the work folder for the model card.
BESIDE = {
    "ablations": "ablations/ablations.json",  # python -m triage.training.ablation
    "real": "real.json",  # scripts/real-slices WORK/draft --json WORK/real.json
}


def measured_beside(work: Path) -> dict[str, Any]:
    """What `BESIDE` names, as far as it is there; the card says nothing of what is not."""
    return {k: json.loads((work / v).read_text()) for k, v in BESIDE.items() if (work / v).exists()}


def _scores(work: Path, name: str) -> list[scoring.Row]:
    """Scores of a set; patients carry its name, because every set counts its patients from 0."""
    rows = scoring.read(work / "scores" / f"{name}.csv")
    return [
        {**r, "patient_id": f"{name}/{r['patient_id']}", "person": f"{name}/{r['person']}"}
        for r in rows
    ]


def main(arguments: Sequence[str] | None = None, recipe: Recipe = SHIPPED) -> None:
    stages = (
        *("sets", "localiser", "trunk", "members", "volume"),
        *("sequence", "judged", "score", "finish"),
    )
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", default=stages, help=f"of {', '.join(stages)}")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and sets go here")
    parser.add_argument("--data", type=Path, help="folder with anatomy/ and ct/ backgrounds")
    parser.add_argument("--weights", type=Path, help="ImageNet weights (safetensors or .pth)")
    parser.add_argument("--judged", type=int, help="patients of the test protocol (default: all)")
    parser.add_argument("--out", type=Path, default=Path("models/reference"))
    parser.add_argument("--version", default="0.1.0")
    a = parser.parse_args(arguments)
    for stage in a.stages:
        say(f"stage {stage}")
        if stage == "sets":
            make_sets(a.work, recipe, a.data)
        elif stage == "localiser":
            own = people(a.work, recipe, 0, recipe.early)
            localiser.train(own, a.work, steps=recipe.steps[stage], log=say)
        elif stage == "trunk":
            trunk.train_trunk(
                *samples(a.work, recipe, recipe.early),
                a.weights,
                a.work,
                steps=recipe.steps[stage],
                log=say,
            )
        elif stage == "members":
            train_members(a.work, recipe)
        elif stage == "volume":
            own, held = learners(a.work, recipe), choosers(a.work, recipe)
            volume.train(
                own,
                a.work,
                steps=recipe.steps[stage],
                held=held,
                validate_every=recipe.validate_every,
                log=say,
            )
        elif stage == "sequence":
            train_sequence(a.work, recipe)
        elif stage == "judged":
            make_judged(a.work, a.data, a.judged)
        elif stage == "score":
            write_draft(a.work, recipe)
            score_sets(a.work, recipe)
        elif stage == "finish":
            finish(a.work, recipe, a.out, a.version)
        else:
            parser.error(f"unknown stage {stage!r}: expected some of {', '.join(stages)}")


if __name__ == "__main__":
    main()
