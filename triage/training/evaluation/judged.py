"""What is evaluated: one score a patient and target, and the cutoffs that it meets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.decision.calibration import Calibration
from triage.decision.checks import number, table
from triage.decision.fit import fused_logits
from triage.decision.fusion import ENSEMBLE_ONLY, Fusion
from triage.decision.logistic import sigmoid
from triage.decision.score_cutoffs import scale_of, to_logits
from triage.decision.scores import BRANCHES, ScoreTable
from triage.decision.table import CutoffTable
from triage.types import Target

Floats = NDArray[np.float64]
VOLUMES, SLICES_ONLY, SCORES = "volumes", "slices only, 2D branch", "scores"


@dataclass(frozen=True, slots=True)
class Judged:
    """Matrices (P, targets), NaN where not assessed or unknown.

    `scores` rank the patients and meet the cutoffs; `probabilities` are calibrated (None: not
    known). `rule_out`, `rule_in`: (targets,) on the scale of `scores`, NaN where there is none.
    `branches`: each branch's own scores. `input`: what the scores come from.
    """

    table: ScoreTable
    scores: Floats
    probabilities: Floats | None
    rule_out: Floats
    rule_in: Floats
    input: str
    branches: Mapping[str, Floats] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        return self.table.targets


def judge_with_bundle(table: ScoreTable, cutoffs: CutoffTable) -> Judged:
    """A table of branch logits, or of calibrated probabilities as `score`, and a bundle's cutoffs.

    Where no row has a logit of the volume net (slices without geometry) but a target's fusion
    needs one, the 2D branch is judged by itself, and the bundle's cutoffs and calibration do not
    apply to that target.
    """
    unknown = [t.value for t in table.targets if t not in cutoffs.targets]
    if unknown:
        raise ValueError(f"The bundle has no cutoffs for {', '.join(unknown)}")
    fusion = {t: cutoffs.targets[t].fusion for t in table.targets}
    notes: tuple[str, ...] = ()
    branches = {name: table.worst(table.values[name]) for name in BRANCHES if table.has(name)}
    calibrations = [cutoffs.targets[t].calibration for t in fusion]
    outs = np.array([cutoffs.targets[t].rule_out.cutoff for t in fusion])
    ins = np.array([cutoffs.targets[t].rule_in.cutoff for t in fusion])
    whole = np.array([f is not None and f.volume > 0 for f in fusion.values()])  # (targets,)
    if not table.has("ensemble") and not table.has("volume"):
        p = table.scores
        if scale_of(p) != "probability":
            p = _apply(p, calibrations)
        return Judged(table, p, p, outs, ins, SCORES, branches, notes)
    if table.has("volume") or not whole.any():
        table, notes = _whole_answers(table, fusion)
        fused = table.worst(fused_logits(table, fusion))
        branches["fused"] = fused
        p = _apply(fused, calibrations)
        kind = VOLUMES if table.has("volume") else SLICES_ONLY
        return Judged(table, p, p, outs, ins, kind, branches, notes)
    alone = {t: None if w else f for w, (t, f) in zip(whole, fusion.items(), strict=True)}
    logits = table.worst(fused_logits(table, alone))  # of the slice ensemble where `whole`
    p = np.where(whole, np.nan, _apply(logits, calibrations))
    names = ", ".join(t.value for t, w in zip(fusion, whole, strict=True) if w)
    return Judged(
        table,
        np.where(whole, logits, p),
        None if whole.all() else p,
        np.where(whole, np.nan, outs),
        np.where(whole, np.nan, ins),
        SLICES_ONLY,
        branches,
        (f"{_SLICES_NOTE} ({names})",),
    )


def _whole_answers(
    table: ScoreTable, fusion: Mapping[Target, Fusion | None]
) -> tuple[ScoreTable, tuple[str, ...]]:
    """Rows without a logit that their fusion needs pass for not assessed, and that is said.

    Single images among volumes have no logit of the volume net. Leaving its term out would lower
    their score.
    """
    nothing = np.full(len(table.patient), np.nan)
    e, v = (np.isnan(table.values.get(name, nothing)) for name in ("ensemble", "volume"))
    weights = [fusion[t] or ENSEMBLE_ONLY for t in table.targets]
    slices = np.array([w.ensemble > 0 for w in weights])[table.target]
    volume = np.array([w.volume > 0 for w in weights])[table.target]
    short = table.assessed & ((slices & e) | (volume & v))
    if not short.any():
        return table, ()
    note = f"{int(short.sum())} rows lack a branch that the fusion needs: not assessed"
    return replace(table, assessed=table.assessed & ~short), (note,)


_SLICES_NOTE = (
    "slices only: the volume net cannot answer, so the fused score, its calibration and the "
    "bundle's cutoffs do not apply; ranks of the 2D branch are measured"
)


def judge_scores(table_: ScoreTable, cutoffs: Mapping[str, Any] | None = None) -> Judged:
    """A table's `score`, and what `triage cutoffs` wrote for such scores (or nothing).

    Without a calibration, scores in [0, 1] pass for probabilities; other scores have none.
    """
    scores, targets = table_.scores, table_.targets
    none = np.full(len(targets), np.nan)
    branches = {name: table_.worst(table_.values[name]) for name in BRANCHES if table_.has(name)}
    scale = scale_of(scores)
    if cutoffs is None:
        p = scores if scale == "probability" else None
        return Judged(table_, scores, p, none, none, SCORES, branches)
    scale = "probability" if "probability" in str(cutoffs.get("scale")) else "logit"
    entries = table(cutoffs, "targets")
    limits = np.full((2, len(targets)), np.nan)
    p = np.full_like(scores, np.nan)
    for t, target in enumerate(targets):
        entry = table(entries, target.value)
        for row, name in enumerate(("rule_out", "rule_in")):
            if entry.get(name) is not None:
                limits[row, t] = number(table(entry, name), "cutoff")
        if entry.get("calibration") is not None:
            own = Calibration.from_dict(table(entry, "calibration"))
            p[:, t] = own.apply(to_logits(scores[:, t], scale))
    return Judged(table_, scores, p, limits[0], limits[1], SCORES, branches)


def _apply(logits: Floats, calibrations: list[Calibration]) -> Floats:
    return np.column_stack([c.apply(logits[:, t]) for t, c in enumerate(calibrations)])


def high_share_of(table_: ScoreTable) -> Floats | None:
    """(P, targets) P(high grade | injury) of the grade head; None where the table has none."""
    if not table_.has("high_logit"):
        return None
    return np.asarray(sigmoid(table_.worst(table_.values["high_logit"])))
