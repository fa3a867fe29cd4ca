"""metrics.json: everything that is measured on one table of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.decision import auc as area
from triage.decision.cutoffs import rule_out
from triage.decision.score_cutoffs import weights_to_prevalence
from triage.decision.scores import WITHOUT_ANY
from triage.training.evaluation import prevalence as shares
from triage.training.evaluation import probabilities, rates, subgroups
from triage.training.evaluation.judged import Judged, high_share_of
from triage.training.evaluation.rsna_metric import WEIGHTS, rsna_metric
from triage.types import DISCLAIMER, TARGETS, Target

Floats = NDArray[np.float64]
Shares = Mapping[Target, float]
EXACT = {"cutoff", "thresholds"}  # never rounded
DIGITS = 6


def measure(judged: Judged, prevalence: Shares | None = None) -> dict[str, Any]:
    """All metrics as JSON. `prevalence`: positives and negatives are weighed to these shares.

    A column `weight` weighs patients where probabilities are judged, and for `auc_weighted`. Other
    AUCs, sensitivity and specificity are those of the patients as they are: exact intervals know no
    weights.
    """
    table = judged.table
    out: dict[str, Any] = {
        "schema_version": "1",
        "disclaimer": DISCLAIMER,
        "data": {
            "input": judged.input,
            "patients": len(table.patients),
            "persons": len(set(table.persons)),
            "healthy": int(table.healthy.sum()),
            "healthy_means": table.healthy_means,
            "injured": int((table.injured == 1).sum()),
            "prevalence": "as-is"
            if prevalence is None
            else {t.value: p for t, p in prevalence.items()},
            "weighted": table.weights is not None,
            "notes": [*table.notes, *judged.notes],
        },
        "intervals": {"level": 0.95, "auc": area.METHOD, "rates": rates.METHOD},
        "targets": {
            target.value: _target(judged, t, (prevalence or {}).get(target))
            for t, target in enumerate(table.targets)
        },
        "any_injury": any_injury(judged),
        "joint": joint(judged),
        "rsna": rsna(judged, prevalence),
    }
    return dict(rounded(out))


def _target(judged: Judged, t: int, share: float | None) -> dict[str, Any]:
    """One target's metrics, on the patients it was assessed in."""
    table = judged.table
    labels = table.labels[:, t]
    known, seen = ~np.isnan(labels), ~np.isnan(judged.scores[:, t])
    use = known & seen
    y, scores = labels[use], judged.scores[use, t]
    persons = [p for p, u in zip(table.persons, use, strict=True) if u]
    missing = known & ~seen
    out: dict[str, Any] = {
        "patients": len(y),
        "positives": int(y.sum()),
        "not_assessed": {
            "patients": int(missing.sum()),
            "positives": int((labels[missing] == 1).sum()),
        },
        "auc": area.auc_interval(scores, y, persons).to_dict(),
        "auc_weighted": _weighted_auc(scores, y, persons, table.weights, use),
    }
    both = 0 < y.sum() < len(y)
    own = None if table.weights is None else table.weights[use]
    weights = weights_to_prevalence(y, share if both else None, own)
    column = subgroups.Column(scores, y, persons, judged.rule_out[t], judged.rule_in[t])
    for name in ("rule_out", "rule_in"):
        cutoff = getattr(column, name)
        out[name] = None if math.isnan(cutoff) else rates.at_cutoff(scores, y, cutoff, share)
    out["zero_fn"] = None  # the published recipe: a cutoff set and measured on the same patients
    if y.sum():
        lowest = rule_out(scores, y.astype(np.int64)).cutoff
        out["zero_fn"] = rates.at_cutoff(scores, y, lowest, share)
    out |= _probabilities(judged, t, use, y, weights)
    graded = len(WEIGHTS[table.targets[t]]) == 3
    out["grades"] = subgroups.by_grade(column, table.highest("grade")[use, t]) if graded else {}
    for name in subgroups.BINS:
        out[name] = subgroups.by_bins(column, name, table.highest(name)[use, t])
    out["branches"] = _branches(judged, t, use, scores, y, persons)
    return out


def _probabilities(
    judged: Judged, t: int, use: NDArray[np.bool_], y: Floats, weights: Floats
) -> dict[str, Any]:
    known = judged.probabilities
    if known is None or not len(y) or np.isnan(known[use, t]).any():
        return {"brier": None, "calibration": None, "reliability": [], "decision_curve": None}
    p = known[use, t]
    return {
        "brier": probabilities.brier(p, y, weights),
        "calibration": probabilities.calibration(p, y, weights),
        "reliability": probabilities.reliability(p, y, weights),
        "decision_curve": probabilities.decision_curve(p, y, weights),
    }


def _branches(
    judged: Judged, t: int, use: NDArray[np.bool_], scores: Floats, y: Floats, persons: list[str]
) -> dict[str, Any]:
    """AUC of every branch on the patients that it answered for, and its lead over the score."""
    out = {}
    for name, values in judged.branches.items():
        own = values[use, t]
        has = ~np.isnan(own)
        if has.any():
            who = [p for p, h in zip(persons, has, strict=True) if h]
            out[name] = {
                "patients": int(has.sum()),
                "auc": area.auc_interval(own[has], y[has], who).to_dict(),
                "lead": area.difference(own[has], scores[has], y[has], who).to_dict(),
            }
    return out


def any_injury(judged: Judged) -> dict[str, Any]:
    """The highest probability of a patient against any injury, and what rule-in flags.

    `means`: whether it is any injury, or any of the judged targets (see `ScoreTable.injured`).
    """
    injured = judged.table.injured
    p = judged.probabilities
    complete, hurt = ~np.isnan(injured), injured == 1
    out: dict[str, Any] = {"patients": int(complete.sum()), "positives": int(hurt.sum())}
    every = judged.table.healthy_means == WITHOUT_ANY
    out["means"] = "any injury" if every else "any judged target"
    if p is None or np.isnan(p).all(axis=0).any():  # without some target it would be another thing
        return out | {"auc": area.UNKNOWN.to_dict(), "suspected": None}
    score = np.nanmax(np.where(np.isnan(p), -1.0, p), axis=1)
    use = complete & (score >= 0)
    persons = [q for q, u in zip(judged.table.persons, use, strict=True) if u]
    labels = hurt[use].astype(np.int64)
    out["auc"] = area.auc_interval(score[use], labels, persons).to_dict()
    out["auc_weighted"] = _weighted_auc(score[use], labels, persons, judged.table.weights, use)
    out["suspected"] = None
    if not np.isnan(judged.rule_in).any():
        flagged = np.asarray((judged.scores >= judged.rule_in).any(axis=1))[use]
        out["suspected"] = rates.at_cutoff(flagged.astype(np.float64), hurt[use], 0.5)
        del out["suspected"]["cutoff"]
    return out


def _weighted_auc(
    scores: Floats,
    labels: NDArray[np.generic],
    persons: list[str],
    weights: Floats | None,
    use: NDArray[np.bool_],
) -> dict[str, float] | None:
    if weights is None:
        return None
    return area.auc_interval(scores, labels, persons, weights=weights[use]).to_dict()


def joint(judged: Judged) -> dict[str, Any] | None:
    """Share of the healthy patients whom no target flags at rule-in."""
    well = judged.table.healthy
    if np.isnan(judged.rule_in).any() or not well.any():
        return None
    flagged = int((judged.scores[well] >= judged.rule_in).any(axis=1).sum())
    n = int(well.sum())
    return {
        "healthy": n,
        "healthy_means": judged.table.healthy_means,
        "suspected": flagged,
        "specificity": rates.clopper_pearson(n - flagged, n).to_dict(),
    }


def rsna(judged: Judged, prevalence: Shares | None) -> dict[str, Any]:
    """The challenge's metric, and that of the best constant guess on the same patients.

    `reason` says why there is none. Where no head tells low from high grade, the probability of an
    injury is split by the natural share of high grades. The metric counts injured patients 2-6
    times, so true probabilities do not do best; `reweighted` is its value for probabilities times
    those weights.
    """
    table, p = judged.table, judged.probabilities
    if judged.targets != TARGETS or p is None:
        return {"score": None, "reason": "needs calibrated probabilities of all five targets"}
    labels, grade = table.labels, table.highest("grade")
    grade = np.where(labels == 0, 0.0, grade)
    graded = [t for t, target in enumerate(TARGETS) if len(WEIGHTS[target]) == 3]
    use = ~(np.isnan(labels) | np.isnan(p)).any(axis=1)
    use &= ~np.isnan(grade[:, graded]).any(axis=1)
    if not use.any():
        return {"score": None, "reason": "needs patients with grades, assessed for all targets"}
    head, natural = high_share_of(table), shares.high_share()
    classes, guesses, reweighted, constant = {}, {}, {}, {}
    for t, target in enumerate(TARGETS):
        q = p[use, t]
        if t in graded:
            y = grade[use, t].astype(np.int64)
            high = np.full(len(q), natural[target]) if head is None else head[use, t]
            high = np.where(np.isnan(high), natural[target], high)
            guesses[target] = np.column_stack([1 - q, q * (1 - high), q * high])
        else:
            y = labels[use, t].astype(np.int64)
            guesses[target] = np.column_stack([1 - q, q])
        classes[target] = y
        # What minimises a weighted log loss is not the probability, but it times the weight.
        reweighted[target] = guesses[target] * np.array(WEIGHTS[target])
        weight = np.array(WEIGHTS[target])[y]
        best = np.bincount(y, weights=weight, minlength=len(WEIGHTS[target]))
        constant[target] = np.tile(best / best.sum(), (len(y), 1))
    hurt = (labels[use] == 1).any(axis=1).astype(np.float64)
    share = shares.of_any(prevalence)
    both = 0 < hurt.sum() < len(hurt)
    own = None if table.weights is None else table.weights[use]
    weights = weights_to_prevalence(hurt, share if both else None, own)
    return {
        "patients": int(use.sum()),
        "reason": None,
        "grades": "natural share of high grades" if head is None else "grade head",
        **rsna_metric(classes, guesses, weights),
        "reweighted": rsna_metric(classes, reweighted, weights)["score"],
        "constant_guess": rsna_metric(classes, constant, weights)["score"],
    }


def rounded(value: Any, key: str = "") -> Any:
    """JSON without NaN (null) and without digits that mean nothing; cutoffs keep all of theirs."""
    if isinstance(value, Mapping):
        return {k: rounded(v, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v, key) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return float(value) if key in EXACT else round(float(value), DIGITS)
    return value
