"""Fusion: one logit from the slice ensemble's and the volume net's.

The weights are fitted on out-of-fold scores, never on calibration patients (those certify the
cutoffs and must not have had a say in anything but monotone calibration).
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

RIDGE = 1.0  # on standardised logits, against a loss that is summed over patients


@dataclass(frozen=True, slots=True)
class Fusion:
    """fused = ensemble * (slice ensemble's logit) + volume * (volume net's logit) + intercept."""

    ensemble: float
    volume: float
    intercept: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.ensemble, self.volume)
        if not all(math.isfinite(v) for v in (*weights, self.intercept)):
            raise ValueError(f"Expected finite numbers, got {self}")
        if min(weights) < 0 or max(weights) <= 0:
            raise ValueError(f"Expected weights >= 0, not all 0, got {self}")

    def apply(self, ensemble: float | None, volume: float | None) -> float:
        """The fused logit. ValueError where a branch that has a weight did not answer.

        Leaving its term out would lower the logit: a silent step towards "no finding".
        """
        fused = self.intercept
        for name, weight, value in (
            ("slice ensemble", self.ensemble, ensemble),
            ("volume net", self.volume, volume),
        ):
            if weight > 0:
                if value is None:
                    raise ValueError(f"Expected a logit of the {name} (weight {weight}), got none")
                fused += weight * value
        return fused

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fusion:
        return cls(number(data, "ensemble"), number(data, "volume"), number(data, "intercept"))


ENSEMBLE_ONLY = Fusion(ensemble=1.0, volume=0.0)
VOLUME_ONLY = Fusion(ensemble=0.0, volume=1.0)


def fit_fusion(
    ensemble: Floats,
    volume: Floats,
    labels: NDArray[np.generic],
    weights: Floats | None = None,
    ridge: float = RIDGE,
) -> Fusion:
    """Logistic regression with weights >= 0 on out-of-fold logits (n,), (n,) and labels (n,).

    With two branches the exact optimum under the constraint is the best feasible one of three
    fits: both branches, either alone. If neither points the right way, both count alike.
    """
    x, y, w = logistic.checked(np.stack([ensemble, volume], 1), labels, weights)  # (n, 2)
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    z = np.column_stack([(x - centre) / scale, np.ones(len(y))])  # (n, 3)
    penalty = np.array([ridge, ridge, 0.0])
    best, best_loss = np.array([0.5, 0.5, 0.0]), math.inf
    for columns in ([0, 1, 2], [0, 2], [1, 2]):
        beta = np.zeros(3)
        beta[columns] = logistic.fit(z[:, columns], y, w, penalty[columns])
        loss = logistic.log_loss(z, y, w, beta, penalty)
        if beta[:2].min() >= 0 and beta[:2].max() > 0 and loss < best_loss:
            best, best_loss = beta, loss
    slopes = best[:2] / scale
    return Fusion(float(slopes[0]), float(slopes[1]), float(best[2] - slopes @ centre))
