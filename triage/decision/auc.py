"""Area under the ROC curve with its interval, and the difference of two on the same patients.

Variance after DeLong, DeLong and Clarke-Pearson (Biometrics 1988), summed over clusters of
patients that share a person (Obuchowski, Biometrics 1997). The interval is symmetric on the logit
of the AUC, so that it stays in [0, 1]; where the classes are separated DeLong's variance is 0, and
Newcombe's method 5 (Statistics in Medicine 2006) takes its place.
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
) -> Interval:
    """AUC of scores (n,) and labels (n,) in {0, 1} with its interval; `persons` (n,) cluster."""
    value = auc(scores, labels)
    if math.isnan(value):
        return UNKNOWN
    z = float(ndtri(0.5 + confidence / 2))
    spread = math.sqrt(_variance(_influence(scores, labels, persons)))
    if value in (0.0, 1.0) or spread == 0:
        positives = int((np.asarray(labels) == 1).sum())
        return newcombe(value, positives, len(labels) - positives, z)
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


def _influence(
    scores: Floats, labels: NDArray[np.generic], persons: Sequence[str] | None
) -> Floats:
    """What each cluster adds to the AUC's error (clusters,); without persons, each patient."""
    s, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels) == 1
    n, m = int(positive.sum()), int((~positive).sum())
    every = midranks(s)
    # Placements: the share of the other class that a patient outranks (ties half).
    above = (every[positive] - midranks(s[positive])) / m  # (n,)
    below = 1 - (every[~positive] - midranks(s[~positive])) / n  # (m,)
    out = np.zeros(len(s))
    out[positive] = (above - above.mean()) / n * math.sqrt(n / max(n - 1, 1))
    out[~positive] = (below - below.mean()) / m * math.sqrt(m / max(m - 1, 1))
    if persons is None:
        return out
    _, index = np.unique(np.asarray(persons), return_inverse=True)
    return np.asarray(np.bincount(index, weights=out), dtype=np.float64)


def _variance(influence: Floats) -> float:
    return float(influence @ influence)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
