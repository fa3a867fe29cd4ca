"""The metric of the RSNA 2023 Abdominal Trauma Detection challenge.

Mean of six sample-weighted log losses: bowel (healthy 1, injury 2), extravasation (1, 6), kidney,
liver and spleen (healthy 1, low 2, high 4) and any injury (1, 6), where the probability of any
injury is the highest 1 - healthy of the five. Probabilities of a target are scaled to sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from triage.types import TARGETS, Target

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Weight of a sample by its class: healthy, then injury, or low and high grade.
WEIGHTS: dict[Target, tuple[float, ...]] = {
    Target.BOWEL: (1, 2),
    Target.EXTRAVASATION: (1, 6),
    Target.KIDNEY: (1, 2, 4),
    Target.LIVER: (1, 2, 4),
    Target.SPLEEN: (1, 2, 4),
}
ANY_WEIGHTS = (1.0, 6.0)
ANY = "any_injury"
EPSILON = float(np.finfo(np.float64).eps)  # log loss keeps probabilities off 0 and 1


def rsna_metric(
    classes: Mapping[Target, Ints],
    probabilities: Mapping[Target, Floats],
    weights: Floats | None = None,
) -> dict[str, float]:
    """`score` (their mean) and the six losses, from classes (n,) and probabilities (n, classes).

    classes: 0 healthy, 1 injury or low grade, 2 high grade. `weights` (n,) multiply the metric's
    own, to bring a sample to natural prevalence. All five targets are needed.
    """
    missing = [t.value for t in TARGETS if t not in classes or t not in probabilities]
    if missing:
        raise ValueError(f"Expected all five targets, without {', '.join(missing)}")
    n = len(classes[TARGETS[0]])
    w = np.ones(n) if weights is None else weights
    losses: dict[str, float] = {}
    injured, hurt = np.zeros(n), np.zeros(n, dtype=np.int64)
    for target in TARGETS:
        y, p = classes[target], _normalised(probabilities[target], len(WEIGHTS[target]), target)
        losses[target.value] = log_loss(y, p, np.array(WEIGHTS[target])[y] * w)
        injured = np.maximum(injured, 1 - p[:, 0])
        hurt = np.maximum(hurt, np.minimum(y, 1))
    both = np.column_stack([1 - injured, injured])
    losses[ANY] = log_loss(hurt, both, np.array(ANY_WEIGHTS)[hurt] * w)
    return {"score": float(np.mean(list(losses.values()))), **losses}


def log_loss(classes: Ints, p: Floats, weights: Floats) -> float:
    """Weighted mean of -log p[class] for p (n, classes)."""
    picked = np.clip(p[np.arange(len(p)), classes], EPSILON, 1 - EPSILON)
    return float(-(weights @ np.log(picked)) / weights.sum())


def _normalised(p: Floats, classes: int, target: Target) -> Floats:
    if p.ndim != 2 or p.shape[1] != classes:
        raise ValueError(f"{target}: expected probabilities (n, {classes}), got {p.shape}")
    total = p.sum(axis=1, keepdims=True)
    if not (np.isfinite(p).all() and (p >= 0).all() and (total > 0).all()):
        raise ValueError(f"{target}: expected probabilities >= 0 with a positive sum")
    return np.asarray(p / total)
