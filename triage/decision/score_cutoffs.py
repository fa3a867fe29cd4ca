"""Cutoffs and calibration of any score table, in the scale of the scores given.

What `triage cutoffs` writes. A bundle's `cutoffs.json` (see `table`) is on the scale of the
calibrated probability instead; `"scale"` keeps the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.decision.calibration import Calibration, fit_calibration
from triage.decision.cutoffs import JOINT_SPECIFICITY, rule_in, rule_out
from triage.decision.logistic import Floats, logit
from triage.decision.scores import ScoreTable
from triage.types import Cutoff, Target

CLIP = 1e-6  # probabilities of exactly 0 or 1 have no logit


@dataclass(frozen=True, slots=True)
class TargetScores:
    """One target's cutoffs; None where the table has not the patients for them (`notes`)."""

    rule_out: Cutoff | None
    rule_in: Cutoff | None
    calibration: Calibration | None
    prevalence: float | None
    positives: int
    negatives: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        out, inn = self.rule_out, self.rule_in
        return {
            "rule_out": out
            and {
                "cutoff": out.cutoff,
                "sensitivity_lower_bound": out.sensitivity_lower_bound,
                "positives": out.positives,
            },
            "rule_in": inn and {"cutoff": inn.cutoff, "specificity": inn.specificity},
            "calibration": self.calibration and self.calibration.to_dict(),
            "prevalence": self.prevalence,
            "positives": self.positives,
            "negatives": self.negatives,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class ScoreCutoffs:
    """What `triage cutoffs` found. `scale`: "probability" (scores in [0, 1]) or "logit"."""

    calibrated_on: str
    scale: str
    patients: int
    healthy: int
    joint_specificity: float | None
    targets: Mapping[Target, TargetScores]
    healthy_means: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": "1",
            "calibrated_on": self.calibrated_on,
            "scale": f"score ({self.scale})",
            "calibration_input": "logit(score)" if self.scale == "probability" else "score",
            "patients": self.patients,
            "healthy": self.healthy,
            "healthy_means": self.healthy_means,
            "joint_specificity": self.joint_specificity,
            "notes": list(self.notes),
            "targets": {target.value: entry.to_dict() for target, entry in self.targets.items()},
        }


def scale_of(scores: Floats) -> str:
    """ "probability" if every score lies in [0, 1], else "logit"; NaN counts for nothing."""
    seen = scores[~np.isnan(scores)]
    return "probability" if len(seen) and seen.min() >= 0 and seen.max() <= 1 else "logit"


def to_logits(scores: Floats, scale: str) -> Floats:
    """Scores as logits; probabilities are kept off 0 and 1. NaN stays NaN."""
    return logit(np.clip(scores, CLIP, 1 - CLIP)) if scale == "probability" else scores


def weights_to_prevalence(
    labels: Floats, wanted: float | None, own: Floats | None = None
) -> Floats:
    """Weights (n,) that bring a sample's share of positives to the wanted prevalence; mean 1.

    `own`: weights > 0 of the patients (of a stratified sample); they decide how much each counts
    among the positives, and among the negatives. Without `wanted` they stay as they are.
    """
    given = np.ones(len(labels)) if own is None else own
    given = given / (given.mean() if len(given) else 1.0)
    if wanted is None:
        return given
    hurt = labels == 1
    share = float(given[hurt].sum() / given.sum())
    if not (0 < share < 1 and 0 < wanted < 1):
        raise ValueError(f"Expected both classes and a prevalence in (0, 1), got {share}, {wanted}")
    return np.asarray(given * np.where(hurt, wanted / share, (1 - wanted) / (1 - share)))


def fit_score_cutoffs(
    table: ScoreTable,
    *,
    calibrated_on: str,
    specificity: float = JOINT_SPECIFICITY,
    prevalence: Mapping[Target, float] | None = None,
) -> ScoreCutoffs:
    """Both cutoffs and the calibration of each target; patients count once.

    Rule-in is joint over the targets of the table: at least `specificity` of the healthy patients
    (see `ScoreTable.healthy_means`) have no score at or above it. `prevalence`: the calibration is
    for these shares of positives (default: the table's own). The column `weight` weighs patients in
    the calibration; cutoffs are set by whoever is highest or lowest. ValueError if no target has
    any positive.
    """
    scores, labels = table.scores, table.labels
    if not (labels == 1).any():
        raise ValueError("Expected at least one positive (label 1) of any target, got none")
    scale = scale_of(scores)
    outs, inns, joint = fit_cutoffs_of(scores, labels, table.healthy, specificity)
    targets = {
        target: _target(
            to_logits(scores[:, t], scale),
            labels[:, t],
            outs[t],
            inns[t],
            (prevalence or {}).get(target),
            table.weights,
        )
        for t, target in enumerate(table.targets)
    }
    return ScoreCutoffs(
        calibrated_on,
        scale,
        len(table.patients),
        int(table.healthy.sum()),
        joint,
        targets,
        table.healthy_means,
        table.notes,
    )


def fit_cutoffs_of(
    scores: Floats, labels: Floats, healthy: NDArray[np.bool_], specificity: float
) -> tuple[list[Cutoff | None], list[Cutoff | None], float | None]:
    """Rule-out and rule-in of (patients, targets) on any scale, NaN where not assessed.

    None where no positive (rule-out) or no healthy patient (rule-in) was assessed; and the share
    of healthy patients without any suspicion.
    """
    outs = [_rule_out(scores[:, t], labels[:, t]) for t in range(scores.shape[1])]
    inns, joint = _rule_in(scores, labels, outs, healthy, specificity)
    return outs, inns, joint


def _rule_out(scores: Floats, labels: Floats) -> Cutoff | None:
    seen = ~np.isnan(scores)
    found = rule_out(scores[seen], labels[seen].astype(np.int64))
    return found if found.positives else None


def _rule_in(
    scores: Floats,
    labels: Floats,
    outs: list[Cutoff | None],
    healthy: NDArray[np.bool_],
    specificity: float,
) -> tuple[list[Cutoff | None], float | None]:
    """Rule-in cutoffs of the targets that some healthy patient was assessed for."""
    well = scores[healthy]  # (healthy, targets)
    usable = [t for t in range(scores.shape[1]) if (~np.isnan(well[:, t])).any()]
    found: list[Cutoff | None] = [None] * scores.shape[1]
    if not usable:
        return found, None
    lowest = np.nanmin(scores[:, usable], axis=0)  # a floor that binds nothing
    floor = np.array(
        [low if (o := outs[t]) is None else o.cutoff for t, low in zip(usable, lowest, strict=True)]
    )
    cutoffs = rule_in(well[:, usable], floor, specificity)
    for t, cutoff in zip(usable, cutoffs, strict=True):
        negative = scores[(labels[:, t] == 0) & ~np.isnan(scores[:, t]), t]
        found[t] = Cutoff(float(cutoff), specificity=float((negative < cutoff).mean()))
    return found, float(1 - (well[:, usable] >= cutoffs).any(axis=1).mean())


def _target(
    logits: Floats,
    labels: Floats,
    out: Cutoff | None,
    inn: Cutoff | None,
    wanted: float | None,
    own: Floats | None,
) -> TargetScores:
    seen = ~np.isnan(logits)
    y = labels[seen]
    positives, negatives = int((y == 1).sum()), int((y == 0).sum())
    notes = []
    if out is None:
        notes.append("no positives: no rule-out cutoff, nothing can be ruled out")
    if inn is None:
        notes.append("no healthy patient was assessed: no rule-in cutoff")
    if not (positives and negatives):
        notes.append("positives and negatives are needed for a calibration")
        return TargetScores(out, inn, None, wanted, positives, negatives, tuple(notes))
    weights = weights_to_prevalence(y, wanted, None if own is None else own[seen])
    unit = float(logits[seen].std()) or 1.0  # "logits" of any table may be in any unit
    fitted = fit_calibration(logits[seen] / unit, y, weights)
    calibration = Calibration(fitted.slope / unit, fitted.intercept)
    share = float(np.average(y, weights=weights)) if wanted is None else wanted
    return TargetScores(out, inn, calibration, share, positives, negatives, tuple(notes))
