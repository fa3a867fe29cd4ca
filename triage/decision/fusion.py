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

# Against a loss that is summed over patients, in units of standardised logits.
# On the difference of the two weights: as if it were 0 to within 0.3. Fitted on 90 patients with 1,
# 4, 10, 30, the AUC of 150 calibration patients was 0.79, 0.81, 0.82, 0.83 for the bowel, whose 24
# positives had misled the fit, and the same within 0.002 for the others.
RIDGE = 10.0
TOTAL_RIDGE = 0.1  # on their sum: keeps the fit finite where the classes are separated
HALVES = np.array([[0.5, 0.5], [0.5, -0.5]])  # half the sum, half the difference
# Of each class: ten for the one weight that the ridge leaves free (Peduzzi et al., J Clin Epidemiol
# 1996).
MIN_CASES = 10


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
EQUAL = Fusion(ensemble=0.5, volume=0.5)  # needs no patient to be fitted on


def fit_fusion(
    ensemble: Floats,
    volume: Floats,
    labels: NDArray[np.generic],
    weights: Floats | None = None,
    ridge: float = RIDGE,
) -> Fusion:
    """Logistic regression with weights >= 0 on out-of-fold logits (n,), (n,) and labels (n,).

    On standardised logits a, b: u * a + v * b = (u + v) * (a + b) / 2 + (u - v) * (a - b) / 2.
    The ridge is on u - v: with little to go by, both branches count alike. The loss is convex, so
    the optimum under the constraint is the best feasible one of three fits: both branches, either
    alone. If neither points the right way: `EQUAL`.
    """
    x, y, w = logistic.checked(np.stack([ensemble, volume], 1), labels, weights)  # (n, 2)
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    z = (x - centre) / scale
    penalty = np.array([TOTAL_RIDGE, ridge])
    alone = penalty.sum(keepdims=True)  # u = u + v = u - v where v = 0
    best, best_loss = EQUAL, math.inf
    for columns, penalties, back in (
        (z @ HALVES, penalty, HALVES),
        (z[:, :1], alone, np.array([[1.0], [0.0]])),
        (z[:, 1:], alone, np.array([[0.0], [1.0]])),
    ):
        design = np.column_stack([columns, np.ones(len(y))])
        ridges = np.append(penalties, 0.0)
        beta = logistic.fit(design, y, w, ridges)
        loss = logistic.log_loss(design, y, w, beta, ridges)
        u, v = (back @ beta[:-1]) / scale
        if min(u, v) >= 0 and max(u, v) > 0 and loss < best_loss:
            intercept = float(beta[-1] - u * centre[0] - v * centre[1])
            best, best_loss = Fusion(float(u), float(v), intercept), loss
    return best


def choose_fusion(
    ensemble: Floats,
    volume: Floats,
    labels: NDArray[np.generic],
    weights: Floats | None = None,
) -> tuple[Fusion, str]:
    """`fit_fusion` where there are patients enough for it, else `EQUAL`; and what was done."""
    positives = int(np.sum(np.asarray(labels) == 1))
    fewer = min(positives, len(labels) - positives)
    if fewer < MIN_CASES:
        return EQUAL, (
            f"equal weights: {positives} positives of {len(labels)} out-of-fold patients are too "
            f"few to fit two weights (fewer than {MIN_CASES} of a class)"
        )
    fusion = fit_fusion(ensemble, volume, labels, weights)
    if fusion == EQUAL:
        return EQUAL, "equal weights: neither branch points the right way out of fold"
    return fusion, (
        f"fitted on {len(labels)} out-of-fold patients, {positives} positive: "
        f"ensemble {fusion.ensemble:.3g}, volume {fusion.volume:.3g}"
    )
