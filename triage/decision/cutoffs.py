"""Cutoffs: rule-out without a false negative, rule-in for healthy studies, and their certificates.

All scores here are calibrated probabilities (any monotone score works); the unit is the patient,
who counts once, with the highest score of his or her series. The patients must have trained,
selected and fused nothing. `score >= cutoff` is what a verdict tests, so ties go the safe way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triage.types import Cutoff

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
JOINT_SPECIFICITY = 0.95


def sensitivity_lower_bound(positives: int, confidence: float = CONFIDENCE) -> float:
    """One-sided lower bound of the sensitivity at the lowest score of n positives: alpha^(1/n).

    The share of further positives above the minimum of n independent ones is distributed
    Beta(n, 1), whose distribution function is s^n; 0 without positives.
    """
    if positives < 0:
        raise ValueError(f"Expected a number of positives >= 0, got {positives}")
    return float((1 - confidence) ** (1 / positives)) if positives else 0.0


def misses_quantile(calibration: int, other: int, level: float = 0.95) -> int:
    """Quantile of how many of `other` positives fall below the lowest of `calibration` positives.

    Under exchangeability the k + 1 lowest of all N = n + m positives are all among the m others
    with probability C(N - k - 1, n) / C(N, n) (negative hypergeometric). The smallest k with
    P(misses <= k) >= level.
    """
    if calibration < 1 or other < 0:
        raise ValueError(f"Expected calibration >= 1 and other >= 0, got {calibration}, {other}")
    total = calibration + other
    beyond = 1.0  # P(misses >= k)
    for k in range(other + 1):
        beyond *= (other - k) / (total - k)  # now P(misses >= k + 1)
        if beyond <= 1 - level + 1e-12:
            return k
    return other


def rule_out(scores: Floats, labels: NDArray[np.generic]) -> Cutoff:
    """The highest cutoff without a false negative: the lowest score of a positive.

    scores (n,), labels (n,) in {0, 1}, one entry a patient (see `by_patient`). Without positives
    the cutoff is 0 with bound 0: nothing is ever ruled out.
    """
    s, y = _checked(scores, labels)
    positive = s[y == 1]
    n = len(positive)
    lowest = float(positive.min()) if n else 0.0
    return Cutoff(lowest, sensitivity_lower_bound=sensitivity_lower_bound(n), positives=n)


def rule_in(healthy: Floats, rule_out_cutoffs: Floats, specificity: float) -> Floats:
    """Rule-in cutoffs (targets,) that leave a share of healthy studies without any suspicion.

    healthy (n, targets): scores of the patients without any injury; NaN where a target was not
    assessed (never suspected). Every target may flag the same share k / n of its healthy patients.
    k is the largest for which at most floor((1 - specificity) * (n + 1)) - 1 patients reach the
    (k + 1)th highest score of any target; the cutoff lies just above that score. So a further
    healthy patient is flagged with probability <= 1 - specificity, whatever the distribution and
    the dependence of the targets (full conformal prediction, Vovk et al. 2005: the patient to come
    moves nobody else up in rank, and adds at most one to the count). With fewer than
    about targets / (1 - specificity) patients no k gives that promise; then none of them is
    flagged (k = 0). Never below rule-out.
    """
    h, floor = np.asarray(healthy, dtype=np.float64), np.asarray(rule_out_cutoffs, np.float64)
    if h.ndim != 2 or len(h) == 0 or floor.shape != h.shape[1:]:
        raise ValueError(
            f"Expected healthy (n, targets) and (targets,), got {h.shape}, {floor.shape}"
        )
    if not 0 < specificity < 1:
        raise ValueError(f"Expected a specificity between 0 and 1, got {specificity}")
    if np.isinf(h).any() or not np.isfinite(floor).all():
        raise ValueError("Expected finite scores and cutoffs (or NaN: not assessed)")
    assessed = (~np.isnan(h)).sum(axis=0)  # (targets,)
    if not assessed.all():
        raise ValueError("Expected every target assessed in at least one healthy patient")
    h = np.where(np.isnan(h), -np.inf, h)
    allowed = max(0, int(np.floor((1 - specificity) * (len(h) + 1) + 1e-9)) - 1)
    ranked = -np.sort(-h, axis=0)  # (n, targets), highest first

    def levels(k: int) -> Floats:
        """(k_t + 1)th highest score of each target; the same share of its assessed patients."""
        k_t = k * assessed // len(h)
        return np.asarray(np.take_along_axis(ranked, k_t[None], axis=0)[0])

    low, high = 0, len(h) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if int((h >= np.maximum(levels(middle), floor)).any(axis=1).sum()) <= allowed:
            low = middle
        else:
            high = middle - 1
    return np.asarray(np.maximum(np.nextafter(levels(low), np.inf), floor))


def by_patient(
    patients: NDArray[np.generic], scores: Floats, labels: NDArray[np.generic]
) -> tuple[NDArray[np.generic], Floats, NDArray[np.int64]]:
    """Series to patients: (unique patients (p,), highest scores, highest labels).

    scores and labels are (n,) or (n, targets). NaN is "not assessed" and loses against a score.
    """
    unique, index = np.unique(np.asarray(patients), return_inverse=True)
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(np.int64)
    if s.shape != y.shape or len(s) != len(index):
        raise ValueError(f"Expected equal shapes, got {s.shape}, {y.shape}, {index.shape}")
    worst = np.full((len(unique), *s.shape[1:]), np.nan)
    label = np.zeros((len(unique), *s.shape[1:]), dtype=np.int64)
    np.fmax.at(worst, index, s)
    np.maximum.at(label, index, y)
    return unique, worst, label


@dataclass(frozen=True, slots=True)
class FittedCutoffs:
    """Cutoffs per column, and the share of calibration patients without any injury not flagged."""

    rule_out: tuple[Cutoff, ...]
    rule_in: tuple[Cutoff, ...]
    joint_specificity: float
    healthy: int


def fit_cutoffs(
    scores: Floats,
    labels: NDArray[np.generic],
    healthy: NDArray[np.bool_] | None = None,
    specificity: float = JOINT_SPECIFICITY,
) -> FittedCutoffs:
    """Both cutoffs for all targets together.

    scores (patients, targets), NaN where not assessed; labels (patients, targets) in {0, 1};
    healthy (patients,): no injury of any kind, by default all labels 0 (give it where the columns
    are not all five targets). ValueError without a healthy patient. The specificity reported with a
    rule-in cutoff is the share of that target's assessed negatives below it, other injuries among
    them.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if s.ndim != 2 or s.shape != y.shape:
        raise ValueError(f"Expected (patients, targets) twice, got {s.shape} and {y.shape}")
    well = (y == 0).all(axis=1) if healthy is None else np.asarray(healthy, dtype=bool)
    if (y[well] == 1).any():
        raise ValueError("Expected no injury in healthy patients")
    assessed = ~np.isnan(s)
    out = [rule_out(s[a, t], y[a, t]) for t, a in enumerate(assessed.T)]
    cutoffs = rule_in(s[well], np.array([c.cutoff for c in out]), specificity)
    below = [(s[a & (y[:, t] == 0), t] < cutoffs[t]) for t, a in enumerate(assessed.T)]
    return FittedCutoffs(
        rule_out=tuple(out),
        rule_in=tuple(
            Cutoff(float(c), specificity=float(b.mean()) if len(b) else None)
            for c, b in zip(cutoffs, below, strict=True)
        ),
        joint_specificity=float(1 - (s[well] >= cutoffs).any(axis=1).mean()),
        healthy=int(well.sum()),
    )


def _checked(scores: Floats, labels: NDArray[np.generic]) -> tuple[Floats, NDArray[np.generic]]:
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if s.ndim != 1 or s.shape != y.shape:
        raise ValueError(f"Expected scores (n,) and labels (n,), got {s.shape} and {y.shape}")
    if not np.isfinite(s).all() or not np.isin(y, (0, 1)).all():
        raise ValueError("Expected finite scores and labels 0 or 1")
    return s, y
