"""Weighted, ridge-penalised logistic regression by damped Newton steps (IRLS), in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def logit(p: Floats) -> Floats:
    """log(p / (1 - p)) for p in (0, 1)."""
    return np.asarray(np.log(p) - np.log1p(-p))


def log_loss(x: Floats, y: Floats, weights: Floats, beta: Floats, ridge: Floats) -> float:
    """Weighted cross-entropy of soft targets y in [0, 1] plus the ridge penalty."""
    eta = x @ beta
    return float(weights @ (np.logaddexp(0, eta) - y * eta) + 0.5 * ridge @ beta**2)


def fit(x: Floats, y: Floats, weights: Floats, ridge: Floats, steps: int = 100) -> Floats:
    """Coefficients (k,) that minimise `log_loss` for a design matrix x (n, k), soft targets y (n,).

    The loss is convex; a step is halved until it does not rise, so that Newton's method also
    converges from far away and on separated data (where `y` or `ridge` must keep it finite).
    """
    beta = np.zeros(x.shape[1])
    loss = log_loss(x, y, weights, beta, ridge)
    for _ in range(steps):
        p = sigmoid(x @ beta)
        gradient = x.T @ (weights * (p - y)) + ridge * beta
        curvature = weights * np.maximum(p * (1 - p), 1e-12)
        hessian = (x * curvature[:, None]).T @ x + np.diag(ridge + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while scale > 1e-10:
            trial = beta - scale * step
            trial_loss = log_loss(x, y, weights, trial, ridge)
            if trial_loss <= loss:
                break
            scale /= 2
        else:
            return beta
        converged = float(np.max(np.abs(trial - beta))) < 1e-10
        beta, loss = trial, trial_loss
        if converged:
            return beta
    return beta


def checked(
    scores: Floats, labels: NDArray[np.generic], weights: Floats | None
) -> tuple[Floats, Floats, Floats]:
    """(scores, labels, weights) as float64 with mean weight 1; ValueError on anything odd."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    if y.ndim != 1 or s.shape[:1] != y.shape or w.shape != y.shape:
        raise ValueError(f"Expected equal lengths, got {s.shape}, {y.shape}, {w.shape}")
    if not (np.isfinite(s).all() and np.isfinite(w).all() and (w >= 0).all()):
        raise ValueError("Expected finite scores and finite weights >= 0")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"Expected labels 0 or 1, got {np.unique(y)[:5].tolist()}")
    if not (w[y == 1].sum() > 0 and w[y == 0].sum() > 0):
        raise ValueError(
            f"Expected positives and negatives, got {int(y.sum())} of {len(y)} positive"
        )
    return s, y, w / w.mean()
