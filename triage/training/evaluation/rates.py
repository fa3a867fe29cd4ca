"""Sensitivity, specificity and accuracy at a cutoff, with exact intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from triage.decision.auc import UNKNOWN, Interval

Floats = NDArray[np.float64]
METHOD = "Clopper-Pearson"
CONFIDENCE = 0.95


def clopper_pearson(hits: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """A proportion with its exact two-sided interval (Biometrika 1934); NaN where n is 0."""
    if not 0 <= hits <= n:
        raise ValueError(f"Expected 0 <= hits <= n, got {hits} of {n}")
    if n == 0:
        return UNKNOWN
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return Interval(hits / n, low, high)


def at_cutoff(
    scores: Floats, labels: NDArray[np.generic], cutoff: float, prevalence: float | None = None
) -> dict[str, Any]:
    """Rates of "score >= cutoff" as a flag. `prevalence`: accuracy at that share of positives."""
    flagged, positive = np.asarray(scores) >= cutoff, np.asarray(labels) == 1
    n, m = int(positive.sum()), int((~positive).sum())
    hits, passed = int((flagged & positive).sum()), int((~flagged & ~positive).sum())
    if prevalence is None:
        accuracy = clopper_pearson(hits + passed, n + m)
    else:
        accuracy = weighted_accuracy(hits, n, passed, m, prevalence)
    return {
        "cutoff": float(cutoff),
        "sensitivity": clopper_pearson(hits, n).to_dict(),
        "specificity": clopper_pearson(passed, m).to_dict(),
        "accuracy": accuracy.to_dict(),
        "missed": n - hits,
        "flagged": int(flagged.sum()),
    }


def weighted_accuracy(hits: int, n: int, passed: int, m: int, prevalence: float) -> Interval:
    """Accuracy at another prevalence than the sample's.

    The bounds join those of sensitivity and specificity at 97.5 % each (Bonferroni): they cover
    at least 95 %, with something to spare.
    """
    both = 1 - (1 - CONFIDENCE) / 2
    sens, spec = clopper_pearson(hits, n, both), clopper_pearson(passed, m, both)
    parts = [
        prevalence * getattr(sens, name) + (1 - prevalence) * getattr(spec, name)
        for name in ("value", "low", "high")
    ]
    return UNKNOWN if math.isnan(parts[0]) else Interval(*parts)
