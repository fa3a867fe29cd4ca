"""Do trivial features tell the injured from the healthy? They must not: a network would learn them.

What editing does to an image (interpolation, noise), and what is drawn beside the injuries (phase,
scanner, scan range), must be the same with and without an injury. A cross-validated logistic
regression on a few global numbers of each volume measures it, target by target.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from triage.decision.auc import auc
from triage.decision.logistic import fit
from triage.simulate import protocol as protocols
from triage.simulate.fields import Dice
from triage.simulate.patient import Patient, simulate
from triage.simulate.plan import GRADES, Case
from triage.types import TARGETS, Target

Floats = NDArray[np.float64]

FOLDS = 5
ROUNDS = 8  # of folds drawn anew; the mean of their AUCs
HIGH = 0.45  # share of high grade among injured solid organs


class Separation(NamedTuple):
    """How well the features separate a target: AUC with its 95 % interval, and each one alone."""

    target: Target
    positives: int
    negatives: int
    auc: float
    low: float
    high: float
    alone: Mapping[str, float]  # feature -> AUC of the feature by itself, at least 0.5

    @property
    def worst(self) -> str:
        """The feature that separates best."""
        return max(self.alone, key=lambda name: self.alone[name])


def balanced_case(dice: Dice) -> Case:
    """Each target injured in half of the patients, independently of the others: what one target
    leaks cannot hide behind another one, or borrow from it."""
    hurt = {t.value: int(dice.chance(0.5)) for t in TARGETS}
    grades = {
        t.value: hurt[t.value] * (2 if GRADES[t] == 2 and dice.chance(HIGH) else 1) for t in TARGETS
    }
    return Case(**grades)


def features(patient: Patient) -> dict[str, float]:
    """Trivial numbers of a finished volume.

    `mean_hu`, `sd_hu` of all voxels and of the body; `noise_hu`: robust sd of the second difference
    along x in soft tissue, by sqrt(6); `slices`; `body_ml`; `file_bytes` of the losslessly
    compressed volume.
    """
    hu = np.round(patient.hu.cpu().numpy()).astype(np.int16)
    body = hu > -300
    inside = hu[body].astype(np.float32)
    line = hu.astype(np.int32)
    second = line[2:] - 2 * line[1:-1] + line[:-2]
    soft = (line[1:-1] > 0) & (line[1:-1] < 160)
    jumps = np.abs(second[soft])
    packed = zlib.compress(np.diff(hu, axis=0, prepend=np.int16(-1024)).tobytes(), 1)
    return {
        "mean_hu": float(hu.mean(dtype=np.float64)),
        "sd_hu": float(hu.std(dtype=np.float64)),
        "body_mean_hu": float(inside.mean(dtype=np.float64)),
        "body_sd_hu": float(inside.std(dtype=np.float64)),
        "noise_hu": 1.4826 * float(np.median(jumps)) / math.sqrt(6) if len(jumps) else 0.0,
        "slices": float(hu.shape[2]),
        "body_ml": float(body.sum()) * patient.grid.voxel_ml,
        "file_bytes": float(len(packed)),
    }


def measure(
    number: int,
    *,
    seed: int,
    spacing: tuple[float, float, float],
    protocol: str | None = None,
    variants: int = 1,
) -> list[tuple[dict[str, float], dict[Target, int]]]:
    """Features and grades of the patients of anatomy `number` of a balanced draw."""
    patients = simulate(
        (seed, number),
        spacing=spacing,
        case=balanced_case,
        variants=variants,
        protocol=protocols.load(protocol) if protocol else None,
    )
    return [(features(patient), patient.grades) for patient in patients]


def standard_error(a: float, positives: int, negatives: int) -> float:
    """Of an AUC (Hanley JA, McNeil BJ, Radiology 1982;143:29-36)."""
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    spread = a * (1 - a) + (positives - 1) * (q1 - a * a) + (negatives - 1) * (q2 - a * a)
    return math.sqrt(max(spread, 0.0) / (positives * negatives))


def cross_validated(x: Floats, labels: NDArray[np.bool_], seed: int = 0) -> float:
    """Mean AUC of logistic regression (standardised, ridge 1) over `ROUNDS` of stratified folds."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(ROUNDS):
        fold = np.empty(len(labels), dtype=int)
        for kind in (True, False):
            where = rng.permutation(np.flatnonzero(labels == kind))
            fold[where] = np.arange(len(where)) % FOLDS
        for k in range(FOLDS):
            train, test = fold != k, fold == k
            mean, sd = x[train].mean(0), x[train].std(0) + 1e-9
            design = np.column_stack([np.ones(len(x)), (x - mean) / sd])
            ridge = np.r_[0.0, np.ones(x.shape[1])]
            y = labels[train].astype(np.float64)
            beta = fit(design[train], y, np.ones(len(y)), ridge)
            values.append(auc(design[test] @ beta, labels[test]))
    return float(np.nanmean(values))


def separate(
    rows: Sequence[Mapping[str, float]], grades: Sequence[Mapping[Target, int]]
) -> list[Separation]:
    """Separation of each target by the features of its patients.

    Raises ValueError where a target has fewer than 10 positives or negatives.
    """
    names = list(rows[0])
    x = np.asarray([[row[name] for name in names] for row in rows])
    out = []
    for target in TARGETS:
        labels = np.asarray([g[target] > 0 for g in grades])
        p, n = int(labels.sum()), int((~labels).sum())
        if min(p, n) < 2 * FOLDS:
            raise ValueError(f"Expected 10 patients with and without {target.value}, got {p}, {n}.")
        value = cross_validated(x, labels)
        error = standard_error(value, p, n)
        single = {}
        for i, name in enumerate(names):
            one = auc(x[:, i], labels)
            single[name] = max(one, 1 - one)
        low, high = max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error)
        out.append(Separation(target, p, n, value, low, high, single))
    return out
