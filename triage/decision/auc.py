"""Area under the ROC curve with its interval, and the difference of two on the same patients.

Variance after DeLong, DeLong and Clarke-Pearson (Biometrics 1988), summed over clusters of
patients that share a person (Obuchowski, Biometrics 1997). The interval is symmetric on the logit
of the AUC, so that it stays in [0, 1]; where the classes are separated DeLong's variance is 0, and
Newcombe's method 5 (Statistics in Medicine 2006) takes its place. Patients of a sample drawn by
strata may have weights: a pair then counts by the product of both, and so do the terms of the
variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
METHOD = "DeLong on the logit of the AUC, clustered by person; Newcombe where separated"


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval; NaN where there is nothing to measure."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


UNKNOWN = Interval(math.nan, math.nan, math.nan)


def midranks(values: Floats) -> Floats:
    """Ranks (n,) from 1, ties sharing the mean of theirs (scipy.stats imports in a second)."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[index])


def auc(scores: Floats, labels: NDArray[np.generic]) -> float:
    """P(score of a positive > score of a negative) + half the ties; NaN without both classes."""
    positive = np.asarray(labels) == 1
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return math.nan
    ranks = midranks(scores)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def auc_interval(
    scores: Floats,
    labels: NDArray[np.generic],
    persons: Sequence[str] | None = None,
    confidence: float = 0.95,
    weights: Floats | None = None,
) -> Interval:
    """AUC of scores (n,) and labels (n,) in {0, 1} with its interval; `persons` (n,) cluster.

    `weights` (n,) > 0: how many patients of the population each stands for, in any unit.
    """
    positive = np.asarray(labels) == 1
    if positive.all() or not positive.any():
        return UNKNOWN
    value = auc(scores, labels) if weights is None else _weighted(scores, labels, weights)
    z = float(ndtri(0.5 + confidence / 2))
    spread = math.sqrt(_variance(_influence(scores, labels, persons, weights)))
    if value in (0.0, 1.0) or spread == 0:
        return newcombe(value, int(positive.sum()), int((~positive).sum()), z)
    centre, half = math.log(value / (1 - value)), z * spread / (value * (1 - value))
    return Interval(value, _sigmoid(centre - half), _sigmoid(centre + half))


def difference(
    one: Floats,
    other: Floats,
    labels: NDArray[np.generic],
    persons: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """AUC of `one` minus AUC of `other` on the same patients (paired DeLong)."""
    value = auc(one, labels) - auc(other, labels)
    if math.isnan(value):
        return UNKNOWN
    influence = _influence(one, labels, persons) - _influence(other, labels, persons)
    half = float(ndtri(0.5 + confidence / 2)) * math.sqrt(_variance(influence))
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


def newcombe(value: float, positives: int, negatives: int, z: float) -> Interval:
    """Interval of an AUC from its value and the class sizes alone: |value - t| = z sqrt(V(t))."""
    n = (positives + negatives) / 2 - 1

    def outside(t: float) -> bool:
        v = t * (1 - t) * (1 + n * ((1 - t) / (2 - t) + t / (1 + t))) / (positives * negatives)
        return abs(value - t) > z * math.sqrt(max(v, 0.0))

    def edge(inside: float, far: float) -> float:
        for _ in range(60):
            middle = (inside + far) / 2
            inside, far = (inside, middle) if outside(middle) else (middle, far)
        return inside

    return Interval(value, edge(value, 0.0), edge(value, 1.0))


def _weighted(scores: Floats, labels: NDArray[np.generic], weights: Floats) -> float:
    above, _, own, _ = _placements(scores, labels, weights)
    return float(np.average(above, weights=own))


def _placements(
    scores: Floats, labels: NDArray[np.generic], weights: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """The share of the other class that each positive outranks, and that outranks each negative
    (ties half); the weights of positives and negatives."""
    s, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels) == 1
    w, v = weights[positive], weights[~positive]
    above = _share_below(s[positive], s[~positive], v)
    below = 1 - _share_below(s[~positive], s[positive], w)
    return above, below, w, v


def _share_below(values: Floats, others: Floats, weights: Floats) -> Floats:
    """Weighted share of `others` below each value, ties half."""
    order = np.argsort(others)
    ranked, mass = others[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    both = mass[np.searchsorted(ranked, values, "left")]
    both = both + mass[np.searchsorted(ranked, values, "right")]
    return np.asarray(both / (2 * mass[-1]))


def _influence(
    scores: Floats,
    labels: NDArray[np.generic],
    persons: Sequence[str] | None,
    weights: Floats | None = None,
) -> Floats:
    """What each cluster adds to the AUC's error (clusters,); without persons, each patient."""
    positive = np.asarray(labels) == 1
    each = np.ones(len(positive)) if weights is None else weights
    out = np.zeros(len(positive))
    above, below, w, v = _placements(scores, labels, each)
    for where, placed, own in ((positive, above, w), (~positive, below, v)):
        n = len(own)
        gap = own / own.sum() * (placed - np.average(placed, weights=own))
        out[where] = gap * math.sqrt(n / max(n - 1, 1))
    if persons is None:
        return out
    _, index = np.unique(np.asarray(persons), return_inverse=True)
    return np.asarray(np.bincount(index, weights=out), dtype=np.float64)


def _variance(influence: Floats) -> float:
    return float(influence @ influence)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
