"""Do the cutoffs keep their promises: fitted on a random half of the patients, tried on the other.

Patients are the unit. What is promised of rule-out holds under exchangeability of the positives:
the misses on the other half follow the negative hypergeometric distribution, whatever the scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.decision.calibration import fit_calibration
from triage.decision.cutoffs import JOINT_SPECIFICITY, misses_quantile
from triage.decision.score_cutoffs import fit_cutoffs_of, scale_of, to_logits
from triage.decision.scores import ScoreTable
from triage.training.evaluation.probabilities import calibration
from triage.types import Target

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Halves:
    """Over all repeats, by target (targets,): see `check_halves`."""

    targets: tuple[Target, ...]
    repeats: int
    positives: NDArray[np.int64]
    calibration_misses: NDArray[np.int64]  # calibration positives below rule-out: must be 0
    not_highest: NDArray[np.int64]  # repeats in which a higher cutoff would also miss nobody
    misses: Floats  # mean misses on the other half
    beyond: Floats  # share of repeats with more misses than the 95 % quantile
    slopes: Floats  # mean calibration slope on the other half
    expected: Floats  # mean of observed over expected positives on the other half
    joint_specificity: Floats  # (repeats,) of the other half's healthy patients

    @property
    def allowed(self) -> float:
        """5 %, plus three standard errors of as many repeats."""
        return float(0.05 + 3 * np.sqrt(0.05 * 0.95 / self.repeats))

    @property
    def kept(self) -> bool:
        """Nobody missed, highest such, misses as promised, slopes within 0.9-1.1."""
        return bool(
            not self.calibration_misses.any()
            and not self.not_highest.any()
            and (self.beyond <= self.allowed).all()
            and (np.abs(self.slopes - 1) <= 0.1).all()
        )

    def rows(self) -> list[dict[str, Any]]:
        """The table that `scripts/cutoff-validation` prints."""
        return [
            {
                "target": target.value,
                "positives": int(self.positives[t]),
                "calibration misses": int(self.calibration_misses[t]),
                "not the highest": int(self.not_highest[t]),
                "misses, other half": f"{self.misses[t]:.2f}",
                "beyond 95 % quantile": f"{self.beyond[t]:.3f}",
                "calibration slope": f"{self.slopes[t]:.3f}",
                "observed / expected": f"{self.expected[t]:.3f}",
            }
            for t, target in enumerate(self.targets)
        ]


def check_halves(
    table: ScoreTable, repeats: int = 1000, seed: int = 0, calibrations: int | None = None
) -> Halves:
    """Fit cutoffs and calibration on random halves of the patients, and try them on the others.

    `calibrations`: fit only in so many of the repeats (default: all; most of the time goes there).
    """
    scores, labels, healthy = table.scores, table.labels, table.healthy
    if np.isnan(scores).any() or np.isnan(labels).any():
        raise ValueError("Expected a score and a label of every patient and target")
    rng = np.random.default_rng(seed)
    logits = to_logits(scores, scale_of(scores))
    positive, shape = labels == 1, (repeats, len(table.targets))
    missed, tied = np.zeros(shape), np.zeros(shape)
    misses, beyond = np.zeros(shape), np.zeros(shape)
    slopes, expected, joint = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(repeats)
    for r in range(repeats):
        half = rng.permutation(len(scores)) < len(scores) // 2
        outs, inns, _ = fit_cutoffs_of(scores[half], labels[half], healthy[half], JOINT_SPECIFICITY)
        out = np.array([np.nan if c is None else c.cutoff for c in outs])
        inn = np.array([np.nan if c is None else c.cutoff for c in inns])
        below = positive & (scores < out)
        missed[r] = below[half].sum(axis=0)
        tied[r] = ~(positive & (scores == out))[half].any(axis=0)
        misses[r] = below[~half].sum(axis=0)
        joint[r] = 1 - (scores[~half & healthy] >= inn).any(axis=1).mean()
        n, m = positive[half].sum(axis=0), positive[~half].sum(axis=0)
        for t in range(shape[1]):
            beyond[r, t] = misses[r, t] > misses_quantile(int(n[t]), int(m[t]))
            if calibrations is not None and r >= calibrations:
                continue
            fitted = fit_calibration(logits[half, t], labels[half, t])
            p = fitted.apply(logits[~half, t])
            found = calibration(p, labels[~half, t], np.ones(len(p)))
            slopes[r, t] = found["slope"]["value"]
            expected[r, t] = found["observed_over_expected"]
    return Halves(
        table.targets,
        repeats,
        positive.sum(axis=0),
        missed.sum(axis=0).astype(np.int64),
        tied.sum(axis=0).astype(np.int64),
        misses.mean(axis=0),
        beyond.mean(axis=0),
        np.nanmean(slopes, axis=0),
        np.nanmean(expected, axis=0),
        joint,
    )
