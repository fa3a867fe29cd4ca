"""Calibration: from a study's logit to a probability at the prevalence of the calibration set.

Balanced training shifts a network's logit; intercept and slope, fitted at natural prevalence on
patients that trained nothing, put it right (Platt, Advances in Large Margin Classifiers, 1999).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.decision import logistic
from triage.decision.checks import number
from triage.decision.logistic import Floats

MIN_SLOPE = 1e-3
# Probabilities stay off 0 and 1, so that a cutoff just above the highest score still is below 1.
# Saturation ties extremes together; a tie with the lowest positive is not excluded (conservative).
MARGIN = 1e-9


@dataclass(frozen=True, slots=True)
class Calibration:
    """probability = sigmoid(slope * logit + intercept), slope > 0: the order never changes."""

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope > 0 and math.isfinite(self.intercept)):
            raise ValueError(f"Expected a slope > 0 and finite numbers, got {self}")

    def apply(self, logits: Floats | float) -> Floats:
        """Probabilities in (0, 1) for logits of any shape; NaN stays NaN."""
        eta = self.slope * np.asarray(logits, dtype=np.float64) + self.intercept
        return np.asarray(np.clip(logistic.sigmoid(eta), MARGIN, 1 - MARGIN))

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        return cls(number(data, "slope"), number(data, "intercept"))


def fit_calibration(
    logits: Floats, labels: NDArray[np.generic], weights: Floats | None = None
) -> Calibration:
    """Fit slope and intercept on logits (n,) and labels (n,) in {0, 1}, one entry a patient.

    `weights` (n,) re-weight a sample to natural prevalence. Platt's targets (N+ + 1)/(N+ + 2) and
    1/(N- + 2) keep the fit finite where the classes are separated. Where the scores point the
    wrong way the slope is held at `MIN_SLOPE`: the probability is then all but the prevalence,
    and the order of the scores is kept. ValueError without positives or without negatives.
    """
    s, y, w = logistic.checked(logits, labels, weights)
    positives, negatives = float(w @ y), float(w @ (1 - y))
    smoothed = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, scale = float(s.mean()), float(s.std()) or 1.0
    z = (s - centre) / scale  # well-conditioned, whatever the scale of the logits
    a, b = logistic.fit(np.stack([z, np.ones_like(z)], 1), smoothed, w, np.zeros(2))
    slope = a / scale
    if slope >= MIN_SLOPE:
        return Calibration(float(slope), float(b - slope * centre))
    # The loss is convex, so its minimum for slope >= MIN_SLOPE lies on the boundary.
    return Calibration(MIN_SLOPE, _intercept(MIN_SLOPE * s, smoothed, w))


def _intercept(offset: Floats, targets: Floats, weights: Floats) -> float:
    """b with weighted mean sigmoid(offset + b) = weighted mean target, by bisection."""
    wanted = float(weights @ targets)
    middle = float(logistic.logit(np.asarray(wanted / weights.sum())))
    low, high = middle - float(offset.max()), middle - float(offset.min())
    for _ in range(100):
        b = (low + high) / 2
        if float(weights @ logistic.sigmoid(offset + b)) < wanted:
            low = b
        else:
            high = b
    return (low + high) / 2


def prevalence_shift(probability: float, here: float, there: float) -> float:
    """The probability at another prevalence: logit(p) + logit(there) - logit(here)."""
    for value in (probability, here, there):
        if not 0 < value < 1:
            raise ValueError(f"Expected probabilities strictly between 0 and 1, got {value}")
    moved = logistic.logit(np.array([probability, here, there])) @ np.array([1.0, -1.0, 1.0])
    return float(logistic.sigmoid(np.asarray(moved)))
