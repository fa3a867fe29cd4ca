"""Cases to score, by the very way that serves.

Volumes go through localiser, scope, slice ensembles and volume net as in `pipeline`. Single images
have no volume: the slice ensembles see the square around the body, and nothing else answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from triage.decision.table import CutoffTable
from triage.inference.crops import VIEWS, Region, View, cut
from triage.inference.localise import localise
from triage.inference.networks import Networks
from triage.inference.programs import BATCH
from triage.inference.scope import judge_scope
from triage.inference.score import Evidence, Looked, gather, to_score
from triage.nets.volume_net import GRADED
from triage.reasons import NotAnalysed
from triage.training.cache import SPACING, Entry, body_square
from triage.training.dataset import SeriesError, open_series, phase_of
from triage.training.layout import Patient, SeriesFiles
from triage.types import TARGETS, Anatomy, Phase, Scope, Target, TargetScore

Row = dict[str, str | float | int]


@dataclass(frozen=True)
class Case:
    """One series to score: its patient, labels, and HU on the working grid (1, X, Y, Z).

    `images`: the grid is a stack of single slices. `any_injury`: None where it is not known.
    `lesions`: of truth.json, by target. `weight`: how many patients of its population it stands
    for, of any unit; None where the sample is one.
    """

    patient_id: str
    person: str
    series_id: str
    grades: Mapping[Target, int]
    grid: MetaTensor | None  # None: the series could not be read
    images: bool
    phase: Phase
    any_injury: bool | None = None
    lesions: Sequence[Mapping[str, Any]] = ()
    weight: float | None = None


@dataclass(frozen=True)
class Seen:
    """What the networks saw of a case; `scope` is None where nothing could be judged."""

    evidence: Evidence
    scope: Scope | None
    anatomy: Anatomy | None = None


def grid_of(entry: Entry) -> MetaTensor:
    """A cached series as a volume on the working grid (1, X, Y, Z), HU."""
    hu = torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0).float().contiguous()
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = entry.meta.get("origin", (0.0, 0.0, 0.0))
    return MetaTensor(hu[None], affine=torch.from_numpy(affine))


def case_of(entry: Entry) -> Case:
    """A cached series as a case."""
    return Case(
        entry.patient_id,
        entry.person,
        str(entry.meta.get("series_id", "")),
        {Target(t): int(g) for t, g in entry.meta["grades"].items()},
        grid_of(entry),
        not entry.is_volume,
        entry.phase,
        _any_injury(entry),
        entry.meta["truth"].get("lesions", ()),
        entry.meta.get("weight", entry.meta["truth"].get("judged", {}).get("weight")),
    )


def _any_injury(entry: Entry) -> bool | None:
    """As the data set says; of simulated patients every target is known."""
    grades = entry.meta["grades"]
    known = any(grades.values()) or (None if len(grades) < len(TARGETS) else False)
    told: bool | None = entry.meta.get("any_injury", known)
    return told


def case_from(patient: Patient, files: SeriesFiles) -> Case:
    """A series on disk as a case; one that cannot be read is there without a grid."""
    grid = None
    with suppress(SeriesError):
        grid = open_series(files).grid
    return Case(
        patient.patient_id,
        patient.person,
        files.series_id,
        patient.grades,
        grid,
        files.kind == "images",
        phase_of(files.aortic_hu),
        patient.any_injury,
        patient.truth.get("lesions", ()),
        patient.truth.get("judged", {}).get("weight"),
    )


def look(case: Case, nets: Networks, targets: Sequence[Target] = TARGETS) -> Seen:
    """Run the networks on one case, the slice ensembles of some targets only."""
    if case.grid is None:
        return Seen(Evidence(), None)
    if case.images:
        return Seen(look_at_images(case.grid, nets, targets), _image_scope(case.phase))
    anatomy = localise(nets, case.grid)
    try:
        scope = judge_scope(case.grid, anatomy)
    except NotAnalysed:
        return Seen(Evidence(), None, anatomy)
    return Seen(gather(nets, case.grid, anatomy, targets), scope, anatomy)


def _image_scope(phase: Phase) -> Scope:
    plain = {Target.EXTRAVASATION: "NO_CONTRAST"} if phase is Phase.PLAIN else {}
    return Scope(phase, None, plain)


@torch.no_grad()
def look_at_images(
    grid: MetaTensor, nets: Networks, targets: Sequence[Target] = TARGETS
) -> Evidence:
    """Single slices (1, X, Y, S) through trunk and members: each alone, the body's square."""
    x, y, side = body_square(grid)
    hu = grid.as_tensor()[0]  # (X, Y, S)
    count = int(hu.shape[2])
    evidence = Evidence()
    for target in targets:
        evidence.looked[target] = []
        if not nets.slices.members[target]:
            continue
        view, size = View(side, (), VIEWS[target][0].high_hu), nets.slices.size[target]
        pieces = []
        for i in range(0, count, BATCH):
            alone = [hu[:, :, k : k + 1] for k in range(i, min(i + BATCH, count))]
            pictures = [cut(plane, [0], (x, y), view, 1.0, size=size) for plane in alone]
            pieces.append(nets.programs.features(torch.cat(pictures), nets.slices.shared[target]))
        features = torch.cat(pieces)  # (S, C, h, w)
        logits = nets.programs.logits(target, features).cpu()  # (members, S)
        where = Region((x, y), 0, count)
        looked = Looked(view, where, list(range(count)), features, logits)
        evidence.looked[target].append(looked)
    return evidence


def by_member(evidence: Evidence, target: Target, member: int) -> Evidence:
    """The evidence as it would be with one member of the target's ensemble alone."""
    alone = [
        replace(v, logits=v.logits[member : member + 1], sequence=None)
        for v in evidence.looked[target]
    ]
    return replace(evidence, looked={**evidence.looked, target: alone})


def rows_of(
    case: Case,
    seen: Seen,
    *,
    targets: Sequence[Target] = TARGETS,
    table: CutoffTable | None = None,
    member: int | None = None,
) -> list[Row]:
    """One row a labelled target. What could not be judged is there with `assessed` 0.

    `score`: the calibrated probability by `table`, else the slice ensemble's logit. `member`: that
    member alone answers for the ensemble (out of fold).
    """
    rows = []
    for target in (t for t in targets if t in case.grades):
        evidence = seen.evidence
        if member is not None and evidence.looked.get(target):
            evidence = by_member(evidence, target, member)
        result = None
        if case.grid is not None and seen.scope is not None:
            result = to_score(target, evidence, case.grid)
        judged = result is not None and seen.scope is not None
        row = _row(case, target, seen, evidence, result if judged else None, table)
        rows.append({**row, "fold": "" if member is None else member})
    return rows


def _row(
    case: Case,
    target: Target,
    seen: Seen,
    evidence: Evidence,
    result: TargetScore | None,
    table: CutoffTable | None,
) -> Row:
    grade = case.grades[target]
    lesions = [x for x in case.lesions if x.get("target") == target.value] if grade else []
    row: Row = {
        "patient_id": case.patient_id,
        "person": case.person,
        "series_id": case.series_id,
        "target": target.value,
        "label": int(grade > 0),
        "any_injury": math.nan if case.any_injury is None else int(case.any_injury),
        "weight": math.nan if case.weight is None else case.weight,
        "grade": grade,
        "assessed": 0,
        "phase": (seen.scope.phase if seen.scope else case.phase).value,
        **_lesion(lesions),
    }
    score = None if result is None else _score(target, result, table)
    if result is None or score is None or seen.scope is None:
        return row
    by_sequence = any(v.sequence is not None for v in evidence.looked[target])
    high = math.nan
    if evidence.grade_logits is not None and target in GRADED:
        high = float(evidence.grade_logits[GRADED.index(target)])
    row |= {
        "score": round(score, 7),
        "ensemble": round(result.ensemble, 5),
        "volume": round(result.volume, 5) if result.volume is not None else math.nan,
        "mean": round(result.pooled["mean"], 5),
        "max": round(result.pooled["max"], 5),
        "sequence": round(result.ensemble, 5) if by_sequence else math.nan,
        "high_logit": round(high, 5),
        "assessed": int(target not in seen.scope.not_assessed),
        "side": result.side or "",
    }
    return row


def _score(target: Target, result: TargetScore, table: CutoffTable | None) -> float | None:
    """Calibrated probability, or the ensemble's logit without a table; None where none is given."""
    if table is None:
        return result.ensemble
    entry = table.targets.get(target)
    if entry is None:
        return None
    logit = result.ensemble
    if entry.fusion is not None:
        if entry.fusion.volume > 0 and result.volume is None:
            return None  # single images, and the volume net has a say
        logit = entry.fusion.apply(result.ensemble, result.volume)
    return float(entry.calibration.apply(logit))


def _lesion(lesions: Sequence[Mapping[str, Any]]) -> Row:
    """Size and contrast of a target's injury: ml of all, mm and HU of the largest lesion."""
    if not lesions:
        return {}
    ml = sum(float(x.get("ml", 0)) for x in lesions)
    largest = max(lesions, key=lambda x: float(x.get("ml", 0)))
    ball = 10 * (6 * float(largest.get("ml", 0)) / math.pi) ** (1 / 3)  # mm of a ball of that size
    row: Row = {"lesion_ml": round(ml, 4), "lesion_mm": largest.get("length_mm") or round(ball, 2)}
    if "contrast_hu" in largest:
        row["contrast_hu"] = float(largest["contrast_hu"])
    return row
