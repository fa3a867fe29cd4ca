"""What the shipped bundle was made from, and the folder in which it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from triage.inference.networks import load_networks
from triage.nets.localiser import Localiser
from triage.nets.mobilenet_v2 import split
from triage.nets.sequence_head import SequenceHeads
from triage.nets.slice_net import SHARED, JointSliceNet, SliceEnsembles
from triage.nets.volume_net import VolumeNet
from triage.simulate.plan import Case
from triage.simulate.strata import UNINJURED, Mix
from triage.training import cache
from triage.training import sequence as sequences
from triage.training.checkpoint import read as read_weights
from triage.training.checkpoint import trained_weights
from triage.types import TARGETS


@dataclass(frozen=True)
class Set:
    """One set of simulated patients. Sets share no person; names are those of `cache.build`.

    `cases`: the rate at which each target is drawn alone (`enriched`), or strata and their shares
    (`simulate.strata`).
    """

    people: int
    seed: int
    variants: int
    cases: float | Mapping[str, float]
    parametric_share: float
    backgrounds: tuple[str, ...]
    plain: float = 0.0

    @property
    def mix(self) -> Mix | None:
        """What draws the injuries; None where each target is drawn alone."""
        return Mix(self.cases) if isinstance(self.cases, Mapping) else None

    @property
    def enriched(self) -> float:
        return 0.0 if isinstance(self.cases, Mapping) else self.cases

    def weight(self, case: Case) -> float | None:
        """The share of natural patients that one of this set stands for; None where each target is
        drawn alone. Sets that share no combination of injuries add up to one sample."""
        mix = self.mix or (None if self.enriched else Mix({UNINJURED: 1.0}))
        return mix.weight(case) / (self.people * self.variants) if mix else None


@dataclass(frozen=True)
class Recipe:
    """What a bundle is made from.

    Persons of the set `train` by number: the first `learn` train, the others choose (early stops).
    The patients of `fuse` weigh the branches, those of `cal` and `well` set the cutoffs. The
    localiser, the trunk's first round and the volume net's later ones need fewer persons, `early`,
    so that they can begin while patients are still being made. `epochs` of the members, at most.
    `base`: a bundle that gives the networks which the work folder has not trained. `without`:
    backgrounds that train and choose nothing, so that a variant can be judged on them. `short`:
    made by `shortened`.
    """

    sets: Mapping[str, Set]
    learn: int
    early: int
    folds: int
    epochs: int
    steps: Mapping[str, int]
    validate_every: int  # steps of the volume net
    base: Path | None = None
    without: tuple[str, ...] = ()
    short: bool = False

    def shortened(self, share: float) -> Recipe:
        """The same with a share of the steps and epochs, all on the first `early` persons."""
        steps = {name: max(1, round(n * share)) for name, n in self.steps.items()}
        epochs = max(1, round(self.epochs * share))
        return replace(self, steps=steps, epochs=epochs, short=True)

    @property
    def trains(self) -> int:
        """So many persons train, at most."""
        return self.early if self.short else self.learn


# What the shipped bundle was made from. Calibration anatomies train nothing; the frozen test
# protocol is judged on s0011, and the CTs portal_abdomen and portal_slab train nothing either.
# Injuries of those who fuse and calibrate come together as they do at natural prevalence. Patients
# with three of five injuries each, as they train, had made a bowel's score of the free blood of
# others: AUC 0.86 where 1.3 injuries a patient gave 0.72.
INJURED = {target.value: 1.0 for target in TARGETS}
SETS = {
    "train": Set(200, 501, 3, 0.35, 0.5, ("s0327", "plain_trunk_3mm", "portal_abdomen_b"), 0.07),
    "fuse": Set(175, 505, 1, {UNINJURED: 2, **INJURED}, 0.7, ("s0328",)),
    "cal": Set(250, 504, 1, INJURED, 0.7, ("s0328",)),
    "well": Set(150, 503, 1, 0.0, 0.7, ("s0328",)),
}
AGAIN = "trunk_again"  # the trunk's second round (warm restart: Loshchilov & Hutter, ICLR 2017)
LOCALISER_AGAIN = "localiser_again"  # on the same persons, once more simulated and augmented
# Share of the second round's weights. Mean Dice of 30 calibration patients and seven organs: 0.870
# for the first round alone, 0.879 for 0.5 and for 0.75, 0.877 for the second alone.
LOCALISER_MIX = 0.5
VOLUME_AGAIN = "volume_again"  # the volume net's second round, on the first one's mistakes
VOLUME_FOUND = "volume_found"  # its third: on mistakes, and on organs as the localiser finds them
VOLUME_DEEP = "volume_deep"  # its fourth, as the third, with residual blocks at 3 and 6 mm
VOLUME_ROUNDS = ("volume", VOLUME_AGAIN, VOLUME_FOUND, VOLUME_DEEP)
STEPS = {
    "localiser": 1500,
    LOCALISER_AGAIN: 1800,
    "trunk": 3000,
    AGAIN: 6000,
    "volume": 4000,
    VOLUME_AGAIN: 3000,
    VOLUME_FOUND: 3000,
    VOLUME_DEEP: 6000,
}
SHIPPED = Recipe(SETS, learn=170, early=110, folds=4, epochs=12, steps=STEPS, validate_every=1000)


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


def weighed(work: Path, recipe: Recipe, name: str) -> list[cache.Entry]:
    """Patients of a set, each with its weight."""
    own = recipe.sets[name]
    return [
        replace(e, meta={**e.meta, "weight": own.weight(Case(**e.meta["truth"]["case"]))})
        for e in entries(work, name)
    ]


def people(work: Path, recipe: Recipe, first: int, beyond: int) -> list[cache.Entry]:
    """Patients of the training persons `first` to `beyond` - 1."""
    wanted = {f"p{i:05d}" for i in range(first, beyond)}
    found = [e for e in entries(work, "train") if e.person in wanted]
    if len(found) != (beyond - first) * recipe.sets["train"].variants:
        raise SystemExit(f"Expected all patients of {beyond - first} persons, got {len(found)}")
    return [e for e in found if e.meta["truth"]["anatomy"] not in recipe.without]


def learners(work: Path, recipe: Recipe) -> list[cache.Entry]:
    """Patients that train."""
    return people(work, recipe, 0, recipe.trains)


def choosers(work: Path, recipe: Recipe) -> list[cache.Entry]:
    """Patients that train nothing, but stop trainings."""
    return people(work, recipe, recipe.learn, recipe.sets["train"].people)


def trunk_weights(work: Path) -> Path:
    """The trunk of a work folder that everything stands on: the last round's."""
    again = work / f"{AGAIN}.pt"
    return again if again.exists() else work / "trunk.pt"


def localiser_weights(work: Path) -> Path:
    """The localiser's last round."""
    again = work / f"{LOCALISER_AGAIN}.pt"
    return again if again.exists() else work / "localiser.pt"


def volume_weights(work: Path) -> Path:
    """The volume net's last round."""
    rounds = [work / f"{name}.pt" for name in reversed(VOLUME_ROUNDS)]
    return next((path for path in rounds if path.exists()), rounds[-1])


class Trained(NamedTuple):
    """The networks of a bundle in the making; `taken`: names of those that `Recipe.base` gave."""

    localiser: Localiser
    slices: SliceEnsembles
    volume: VolumeNet
    sequence: SequenceHeads | None
    taken: tuple[str, ...]


def load_trained(work: Path, recipe: Recipe) -> Trained:
    """The trained networks of a work folder, and of its base what it has not trained."""
    files = {
        "localiser": [localiser_weights(work)],
        "slices": [trunk_weights(work), *(work / f"members_{t.value}.pt" for t in TARGETS)],
        "volume": [volume_weights(work)],
        "sequence": [work / "sequence.pt"],
    }
    base = load_networks(recipe.base, "cpu") if recipe.base else None
    taken = tuple(n for n, own in files.items() if base and not all(f.exists() for f in own))
    given = {name: getattr(base, name) for name in taken}
    found = Trained(
        given.get("localiser") or read_localiser(localiser_weights(work)),
        given.get("slices") or _ensembles(work, recipe.folds),
        given.get("volume") or read_volume(volume_weights(work)),
        given["sequence"] if "sequence" in given else sequences.load_heads(work / "sequence.pt"),
        taken,
    )
    for net in found[:3]:
        net.eval().requires_grad_(False)
    return found


def read_localiser(path: Path) -> Localiser:
    net = Localiser()
    net.load_state_dict(trained_weights(path))
    return net


def read_volume(path: Path) -> VolumeNet:
    weights = trained_weights(path)
    net = VolumeNet(deep=any(name.startswith("fine.") for name in weights))
    net.take_up(weights)
    return net


def _ensembles(work: Path, folds: int) -> SliceEnsembles:
    joint = JointSliceNet()
    joint.load_state_dict(trained_weights(trunk_weights(work)))
    ensembles = SliceEnsembles(folds, pooling=joint.pooling)
    ensembles.trunk.load_state_dict(split(joint.net, SHARED)[0].state_dict())
    for target in TARGETS:
        trained = read_weights(work / f"members_{target.value}.pt")["members"]
        for tail, weights in zip(ensembles.of(target), trained, strict=True):
            tail.load_state_dict(weights)
    return ensembles
