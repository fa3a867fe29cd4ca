"""Scores of simulated patients by the very pipeline that serves: one row a patient and target."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from triage.inference.localise import localise
from triage.inference.networks import Networks
from triage.inference.scope import judge_scope
from triage.inference.score import gather, to_score
from triage.reasons import NotAnalysed
from triage.training.cache import SPACING, Entry
from triage.types import ORGAN_LABEL, TARGETS, Anatomy, Organ

FIELDS = (
    "patient_id",
    "person",
    "target",
    "label",
    "grade",
    "ensemble",
    "volume",
    "high_logit",
    "assessed",
    "phase",
    "lesion_ml",
)
Row = dict[str, str | float | int]


def grid_of(entry: Entry) -> MetaTensor:
    """A cached patient as a volume on the working grid (1, X, Y, Z), HU."""
    hu = torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0).float().contiguous()
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = entry.meta["origin"]
    return MetaTensor(hu[None], affine=torch.from_numpy(affine))


def dice(anatomy: Anatomy, entry: Entry) -> dict[Organ, float]:
    """Dice of the localiser against the truth, for the organs that the truth knows."""
    found = anatomy.labels.as_tensor()[0]
    truth = torch.from_numpy(np.array(entry.labels[0])).permute(2, 1, 0)
    out = {}
    for organ, value in ORGAN_LABEL.items():
        a, b = found == value, truth == value
        both = int(a.sum()) + int(b.sum())
        if organ in entry.known and both:
            out[organ] = 2 * int((a & b).sum()) / both
    return out


def score(entry: Entry, nets: Networks) -> tuple[list[Row], dict[Organ, float]]:
    """All rows of one patient; targets out of scope are there with `assessed` 0."""
    grid = grid_of(entry)
    anatomy = localise(nets.localiser, grid)
    overlap = dice(anatomy, entry)
    try:
        scope = judge_scope(grid, anatomy)
    except NotAnalysed:
        return [], overlap
    evidence = gather(nets, grid, anatomy)
    lesions = entry.meta["truth"]["lesions"]
    rows: list[Row] = []
    for target in TARGETS:
        result = to_score(target, evidence, grid)
        if result is None:
            continue
        high = np.nan
        if evidence.grade_logits is not None and result.grade is not None:
            from triage.nets.volume_net import GRADED

            high = float(evidence.grade_logits[GRADED.index(target)])
        rows.append(
            {
                "patient_id": entry.folder.name,
                "person": entry.person,
                "target": target.value,
                "label": int(entry.grade(target) > 0),
                "grade": entry.grade(target),
                "ensemble": round(result.ensemble, 5),
                "volume": round(result.volume if result.volume is not None else np.nan, 5),
                "high_logit": round(high, 5),
                "assessed": int(target not in scope.not_assessed),
                "phase": entry.phase.value,
                "lesion_ml": sum(x.get("ml", 0) for x in lesions if x["target"] == target.value),
            }
        )
    return rows, overlap


def score_all(
    entries: Sequence[Entry], nets: Networks, out: Path, log: Callable[[str], None] = print
) -> list[Row]:
    """Score patients into a CSV; patients that are in it already are not scored again."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {r["patient_id"] for r in read(out)} if out.exists() else set()
    overlaps = out.with_name(out.stem + "_dice.csv")
    for i, entry in enumerate(entries):
        if entry.folder.name in done:
            continue
        rows, overlap = score(entry, nets)
        _append(out, FIELDS, rows)
        organs: list[Row] = [
            {"patient_id": entry.folder.name, **{o.value: v for o, v in overlap.items()}}
        ]
        _append(overlaps, ("patient_id", *(o.value for o in Organ)), organs)
        log(f"scored {i + 1}/{len(entries)}")
    return read(out)


def _append(path: Path, fields: Sequence[str], rows: Iterable[Row]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[Row]:
    """Rows of a score table; numbers as numbers."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = {"patient_id", "person", "target", "phase"}
    return [{k: v if k in texts else float(v or "nan") for k, v in r.items()} for r in rows]
