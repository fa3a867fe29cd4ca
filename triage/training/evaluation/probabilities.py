"""Are the probabilities right, and are they of use: Brier, calibration, decision curves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from triage.decision import logistic
from triage.decision.auc import UNKNOWN, Interval
from triage.training.evaluation.rates import clopper_pearson

Floats = NDArray[np.float64]
CLIP = 1e-9
THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 51))


def brier(p: Floats, labels: Floats, weights: Floats) -> float:
    """Weighted mean of (p - label)^2 (Brier, Monthly Weather Review 1950)."""
    return float(weights @ (p - labels) ** 2 / weights.sum())


def calibration(p: Floats, labels: Floats, weights: Floats) -> dict[str, Any]:
    """Slope and intercept of the label's logit on logit(p), and observed over expected.

    1, 0 and 1 are perfect; a slope below 1 is overconfident (Cox, Biometrika 1958; Van Calster et
    al., J Clin Epidemiol 2016). `in_the_large`: intercept with the slope held at 1. NaN where the
    classes are separated: the slope is then unbounded. Weights enter the variance by the sandwich.
    """
    x = logistic.logit(np.clip(p, CLIP, 1 - CLIP))
    w = weights / weights.mean()
    out: dict[str, Any] = {
        "slope": UNKNOWN.to_dict(),
        "intercept": UNKNOWN.to_dict(),
        "observed_over_expected": float(w @ labels / (w @ p)) if w @ p > 0 else math.nan,
    }
    positive = labels == 1
    if not positive.any() or positive.all() or np.ptp(x) == 0 or _separated(x, positive):
        return out
    z = np.column_stack([(x - x.mean()) / x.std(), np.ones(len(x))])
    beta = logistic.fit(z, labels, w, np.zeros(2))
    back = np.array([[1 / x.std(), 0.0], [-x.mean() / x.std(), 1.0]])
    q = logistic.sigmoid(z @ beta)
    bread = np.linalg.inv((z * (w * q * (1 - q))[:, None]).T @ z)
    score = z * (w * (labels - q))[:, None]
    spread = np.sqrt(np.diag(back @ bread @ (score.T @ score) @ bread @ back.T))
    half = float(ndtri(0.975)) * spread
    for name, value, h in zip(("slope", "intercept"), back @ beta, half, strict=True):
        out[name] = Interval(float(value), float(value - h), float(value + h)).to_dict()
    return out


def _separated(x: Floats, positive: NDArray[np.bool_]) -> bool:
    """True if a threshold on x divides the classes: the likelihood then has no maximum."""
    a, b = x[positive], x[~positive]
    return bool(a.min() >= b.max() or b.min() >= a.max())


def reliability(p: Floats, labels: Floats, weights: Floats, bins: int = 10) -> list[dict[str, Any]]:
    """Groups of equal size by rising p: mean p, observed share with its interval.

    With weights the interval's bounds are those of the unweighted share, moved by the odds that the
    weights change it by.
    """
    out, overall = [], _odds(labels, weights)
    for group in np.array_split(np.argsort(p, kind="stable"), min(bins, len(p))):
        hits, w = int(labels[group].sum()), weights[group]
        plain = clopper_pearson(hits, len(group))
        odds = _odds(labels[group], w) if 0 < hits < len(group) else overall
        observed = Interval(*(_moved(v, odds) for v in (plain.value, plain.low, plain.high)))
        out.append(
            {
                "patients": len(group),
                "positives": hits,
                "predicted": float(w @ p[group] / w.sum()),
                "observed": observed.to_dict(),
            }
        )
    return out


def _odds(labels: Floats, weights: Floats) -> float:
    """Weight of a positive over weight of a negative; 1 without both."""
    positive = labels == 1
    if not positive.any() or positive.all():
        return 1.0
    return float(weights[positive].mean() / weights[~positive].mean())


def _moved(share: float, odds: float) -> float:
    return share * odds / (share * odds + 1 - share)


def decision_curve(p: Floats, labels: Floats, weights: Floats) -> dict[str, list[float]]:
    """Net benefit TP/n - FP/n * t/(1 - t) of flagging p >= t (Vickers and Elkin, MDM 2006).

    `model`, and `all` for flagging everybody; flagging nobody is 0. For thresholds t of 1-50 %.
    """
    w = weights / weights.sum()
    share = float(w @ labels)
    model, everybody = [], []
    for t in THRESHOLDS:
        odds, flagged = t / (1 - t), p >= t
        model.append(float(w @ (flagged * labels) - w @ (flagged * (1 - labels)) * odds))
        everybody.append(share - (1 - share) * odds)
    return {"thresholds": list(THRESHOLDS), "model": model, "all": everybody}
