"""Who trains, who is held out, who calibrates: by person, stratified over the targets.

Calibration persons come first and train, select and fuse nothing. Their choice depends on the data
alone, not on the seed: two trainings on the same data never calibrate on what the other trained.
The others are dealt into folds by iterative stratification (Sechidis et al., ECML PKDD 2011).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.nets.bundle import Manifest, read_bytes
from triage.training.layout import Patient
from triage.training.layout_tables import CALIBRATION
from triage.types import TARGETS, Target

Floats = NDArray[np.float64]
SPLITS = "evaluation/splits.json"  # in a bundle
TRAIN_ONLY = "train"  # added patients: in every member's training, never held out


class SplitError(ValueError):
    """The patients cannot be split as asked for."""


@dataclass(frozen=True)
class Split:
    """Where each person is: a fold number, `calibration` or `train` (never held out)."""

    where: Mapping[str, int | str]
    folds: int

    def trains(self, person: str, fold: int) -> bool:
        """Whether the person trains the member that holds `fold` out."""
        place = self.where[person]
        return place not in (CALIBRATION, fold)

    def holds_out(self, person: str, fold: int) -> bool:
        return self.where[person] == fold

    def calibrates(self, person: str) -> bool:
        return self.where[person] == CALIBRATION

    def to_dict(self) -> dict[str, Any]:
        """For the bundle: persons under a hash of their name."""
        return {"folds": self.folds, "persons": {digest(p): w for p, w in self.where.items()}}

    @property
    def sha256(self) -> str:
        text = json.dumps([self.folds, sorted(self.where.items())])
        return hashlib.sha256(text.encode()).hexdigest()


def digest(person: str) -> str:
    """A person's name in a bundle: not readable, and the same in every bundle."""
    return hashlib.sha256(f"triage person {person}".encode()).hexdigest()[:24]


def trained_before(folder: Path, manifest: Manifest) -> set[str]:
    """Digests of the persons that trained a bundle, where it says so. Raises BundleError."""
    if SPLITS not in manifest.files:
        return set()
    told = json.loads(read_bytes(folder, SPLITS, manifest))
    return {name for name, where in told["persons"].items() if where != CALIBRATION}


def warning(persons: Collection[str], trained: Collection[str]) -> str | None:
    """What to say where a bundle is judged on persons that trained it."""
    known = sum(digest(p) in trained for p in persons)
    if not known:
        return None
    return (
        f"{known} of {len(persons)} persons trained this bundle: on new patients it will be worse"
        " than these figures"
    )


def make_split(
    patients: Sequence[Patient],
    targets: Sequence[Target],
    *,
    folds: int,
    calibration: float,
    seed: int,
    added: Sequence[Patient] = (),
    trained: Collection[str] = (),
) -> Split:
    """Split patients into calibration and folds; `added` ones only train.

    `calibration`: share of the persons. `trained`: digests of persons that trained the networks
    to start from; they never calibrate. Folds given with the data are kept. Raises SplitError.
    """
    names = sorted({p.person for p in patients})
    if clash := sorted({p.person for p in added} & set(names)):
        raise SplitError(f"added patients share a person with the data: {clash[:3]}")
    if folds < 2 or not 0 <= calibration < 1:
        raise SplitError(
            f"expected folds >= 2 and 0 <= calibration < 1, got {folds}, {calibration}"
        )
    labels = label_table(patients, names)
    given = {p.person: p.fold for p in patients if p.fold is not None}
    place: dict[str, int | str] = {n: CALIBRATION for n, f in given.items() if f == CALIBRATION}
    if not place:
        free = [i for i, n in enumerate(names) if digest(n) not in trained]
        share = min(1.0, calibration * len(names) / max(1, len(free)))
        order = _order([names[i] for i in free], "calibration")
        dealt = deal(labels[free][order], [share, 1 - share])
        place = {names[free[i]]: CALIBRATION for i, b in zip(order, dealt, strict=True) if b == 0}
    rest = [i for i, n in enumerate(names) if n not in place]
    own = {n: int(f) for n, f in given.items() if f != CALIBRATION and n not in place}
    if own:
        folds = _given(names, rest, own)
        place |= own
    else:
        order = _order([names[i] for i in rest], f"fold {seed}")
        asked = [*(TARGETS.index(t) for t in targets), -1]
        dealt = deal(labels[rest][order][:, asked], [1 / folds] * folds)
        place |= {names[rest[i]]: int(b) for i, b in zip(order, dealt, strict=True)}
    _check(names, labels, place, targets, folds)
    place |= {p.person: TRAIN_ONLY for p in added}
    return Split(place, folds)


def _given(names: Sequence[str], rest: Sequence[int], own: Mapping[str, int]) -> int:
    """Number of the folds given with the data, which must be 0 to K-1 and name everybody."""
    without = [names[i] for i in rest if names[i] not in own]
    if without:
        raise SplitError(f"folds.csv: no fold for {len(without)} patients, such as {without[0]}")
    numbers = sorted(set(own.values()))
    if numbers != list(range(len(numbers))) or len(numbers) < 2:
        raise SplitError(f"folds.csv: expected folds 0 to K-1, at least two, got {numbers}")
    return len(numbers)


def label_table(patients: Sequence[Patient], names: Sequence[str]) -> Floats:
    """(persons, targets + 1): has a positive of the target; last, is without any injury."""
    row = {n: i for i, n in enumerate(names)}
    out = np.zeros((len(names), len(TARGETS) + 1))
    out[:, -1] = 1
    for p in patients:
        for t, target in enumerate(TARGETS):
            if p.grades.get(target, 0) > 0:
                out[row[p.person], t] = 1
        if p.any_injury:
            out[row[p.person], -1] = 0
    return out


def _order(names: Sequence[str], salt: str) -> list[int]:
    """An order that looks random, and in which new names do not move the others about."""
    keys = [hashlib.sha256(f"{salt}/{n}".encode()).hexdigest() for n in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def deal(labels: Floats, shares: Sequence[float]) -> NDArray[np.int64]:
    """Iterative stratification: rows of labels (n, L) in {0, 1} -> bins (n,) of the given shares.

    The rarest label still to be dealt goes first, each of its rows to the bin that lacks most of
    it; ties to the bin that lacks most rows, then to the first.
    """
    n = len(labels)
    wanted = np.outer(shares, labels.sum(0))  # (bins, L) still wanted
    room = np.asarray(shares) * n
    bins = np.full(n, -1, dtype=np.int64)
    while (bins < 0).any():
        left = (labels * (bins < 0)[:, None]).sum(0)  # (L,)
        label = int(np.where(left > 0, left, np.inf).argmin()) if (left > 0).any() else None
        rows = np.flatnonzero((bins < 0) & (labels[:, label] > 0 if label is not None else True))
        for i in rows:
            lack = wanted[:, label] if label is not None else room
            b = max(range(len(shares)), key=lambda k: (round(float(lack[k]), 9), room[k], -k))
            bins[i] = b
            wanted[b] -= labels[i]
            room[b] -= 1
    return bins


def _check(
    names: Sequence[str],
    labels: Floats,
    place: Mapping[str, int | str],
    targets: Sequence[Target],
    folds: int,
) -> None:
    """Every fold can be trained and judged."""
    for target in targets:
        column = labels[:, TARGETS.index(target)]
        for k in range(folds):
            held = [bool(column[i]) for i, n in enumerate(names) if place.get(n) == k]
            if any(held) and not all(held):
                continue
            what = "positive" if not any(held) else "negative"
            count = int(column.sum() if what == "positive" else len(names) - column.sum())
            raise SplitError(
                f"{target}: fold {k} of {folds} has no {what} patient ({count} of {len(names)}"
                " persons in all): use fewer --folds or more data"
            )
