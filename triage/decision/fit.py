"""A bundle's cutoffs.json from score tables: fusion out of fold, the rest on other patients.

The patients that set calibration and cutoffs must have trained, selected and fused nothing: a
patient or person in both tables is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from triage.decision.calibration import Calibration, fit_calibration
from triage.decision.cutoffs import JOINT_SPECIFICITY, fit_cutoffs
from triage.decision.fusion import EQUAL, VOLUME_ONLY, Fusion, choose_fusion
from triage.decision.logistic import Floats
from triage.decision.score_cutoffs import weights_to_prevalence
from triage.decision.scores import WITHOUT_ANY, ScoreTable
from triage.decision.table import CutoffTable, TargetCutoffs
from triage.types import Target


@dataclass(frozen=True, slots=True)
class Fitted:
    """The table, what became of the fusion of each target, and what the cutoffs rest on."""

    cutoffs: CutoffTable
    fusion: Mapping[Target, str]
    joint_specificity: float
    patients: int
    healthy: int
    positives: Mapping[Target, int]
    healthy_means: str


def fit_table(
    calibration: ScoreTable,
    *,
    calibrated_on: str,
    prevalence: Mapping[Target, float] | None = None,
    out_of_fold: ScoreTable | None = None,
    specificity: float = JOINT_SPECIFICITY,
) -> Fitted:
    """Fusion from `out_of_fold`, then calibration and both cutoffs from `calibration`.

    Tables hold branch logits as columns `ensemble` and `volume`; without them `score` is the
    logit. `prevalence`: shares of positives that probabilities are calibrated for (default: the
    calibration patients' own). A column `weight` weighs patients in fusion and calibration.
    Without out-of-fold rows both branches count alike. ValueError names the target that lacks
    positives or negatives, or the patients in both tables.
    """
    if out_of_fold is not None:
        refuse_overlap(out_of_fold, calibration)
    fusion, said = _fusions(calibration, out_of_fold)
    logits = calibration.worst(fused_logits(calibration, fusion))
    labels = calibration.labels
    probabilities = np.full_like(logits, np.nan)
    calibrations: list[Calibration] = []
    shares: list[float] = []
    for t, target in enumerate(calibration.targets):
        seen = ~np.isnan(logits[:, t])
        x, y = logits[seen, t], labels[seen, t]
        if not 0 < y.sum() < len(y):
            raise ValueError(
                f"{target}: expected positives and negatives among the calibration patients, "
                f"got {int(y.sum())} positives of {len(y)}"
            )
        wanted = None if prevalence is None else prevalence[target]
        own = None if calibration.weights is None else calibration.weights[seen]
        weights = weights_to_prevalence(y, wanted, own)
        share = float(np.average(y, weights=weights)) if wanted is None else wanted
        fitted = fit_calibration(x, y, weights)
        calibrations.append(fitted)
        shares.append(share)
        probabilities[seen, t] = fitted.apply(x)
    healthy = calibration.healthy
    if not healthy.any():
        raise ValueError(
            f"expected calibration patients {WITHOUT_ANY}, got none: no rule-in cutoff can be set"
        )
    cut = fit_cutoffs(probabilities, labels, healthy, specificity)
    entries = {
        target: TargetCutoffs(
            calibrations[t], cut.rule_out[t], cut.rule_in[t], shares[t], fusion[target]
        )
        for t, target in enumerate(calibration.targets)
    }
    return Fitted(
        CutoffTable(calibrated_on, entries),
        said,
        cut.joint_specificity,
        len(calibration.patients),
        cut.healthy,
        {t: int(np.nansum(labels[:, i])) for i, t in enumerate(calibration.targets)},
        calibration.healthy_means,
    )


def refuse_overlap(fitted_on: ScoreTable, certified_on: ScoreTable) -> None:
    """ValueError if a patient, or a person behind a patient, is in both tables."""
    for what, one, other in (
        ("patients", fitted_on.patients, certified_on.patients),
        ("persons", fitted_on.persons, certified_on.persons),
    ):
        both = sorted(set(one) & set(other))
        if both:
            shown = ", ".join(both[:5]) + (", ..." if len(both) > 5 else "")
            raise ValueError(
                "Expected calibration patients that trained, selected and fused nothing, got "
                f"{len(both)} {what} in both tables: {shown}"
            )


def fused_logits(table: ScoreTable, fusion: Mapping[Target, Fusion | None]) -> Floats:
    """(n,) logits of the rows: the branches fused, or `score` where the table has no branch.

    NaN for rows that were not assessed. ValueError where a branch that has a weight has no value:
    a missing term would be a silent step towards "no finding".
    """
    out = np.full(len(table.patient), np.nan)
    branches = [table.values.get(name) for name in ("ensemble", "volume")]
    for i in np.flatnonzero(table.assessed):
        ensemble, volume = (None if b is None or np.isnan(b[i]) else float(b[i]) for b in branches)
        weights = fusion.get(table.targets[table.target[i]])
        if weights is not None:
            out[i] = weights.apply(ensemble, volume)
        elif ensemble is not None:
            out[i] = ensemble
        else:
            out[i] = table.values["score"][i]
    return out


def _fusions(
    calibration: ScoreTable, out_of_fold: ScoreTable | None
) -> tuple[dict[Target, Fusion | None], dict[Target, str]]:
    """Each target's fusion, and what was done, in words."""
    fusion: dict[Target, Fusion | None] = {}
    said: dict[Target, str] = {}
    slices, volume = calibration.has("ensemble"), calibration.has("volume")
    for target in calibration.targets:
        if not (slices and volume):
            fusion[target] = VOLUME_ONLY if volume else None
            said[target] = "one branch alone: nothing to fuse"
        elif out_of_fold is None or target not in out_of_fold.targets:
            fusion[target] = EQUAL
            said[target] = "equal weights: no out-of-fold scores to fit on"
        else:
            fusion[target], said[target] = _fit_one(out_of_fold, target)
    return fusion, said


def _fit_one(table: ScoreTable, target: Target) -> tuple[Fusion, str]:
    """Fit on one row a patient: the series with the highest mean of both branches."""
    t = table.targets.index(target)
    nothing = np.full(len(table.patient), np.nan)
    e, v = table.values.get("ensemble", nothing), table.values.get("volume", nothing)
    best: dict[int, int] = {}
    for i in np.flatnonzero(table.assessed & (table.target == t) & ~np.isnan(e) & ~np.isnan(v)):
        patient = int(table.patient[i])
        if patient not in best or e[i] + v[i] > e[best[patient]] + v[best[patient]]:
            best[patient] = int(i)
    rows = np.array(list(best.values()), dtype=np.int64)
    labels = table.labels[table.patient[rows], t] if len(rows) else np.zeros(0)
    weights = None
    if table.weights is not None and 0 < labels.sum() < len(labels):  # both classes keep their say
        weights = weights_to_prevalence(
            labels, float(labels.mean()), table.weights[table.patient[rows]]
        )
    return choose_fusion(e[rows], v[rows], labels, weights)
