"""Score tables of data sets: one row a series and target, written as they grow."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.decision.table import CutoffTable
from triage.inference.networks import Networks
from triage.training.cache import Entry
from triage.training.cases import Row, case_from, case_of, grid_of, look, rows_of
from triage.training.layout import read_layout
from triage.types import ORGAN_LABEL, TARGETS, Anatomy, Organ

Mask = Tensor | NDArray[np.bool_]

__all__ = ["FIELDS", "Row", "grid_of", "read", "score_all", "score_data"]
FIELDS = (
    "patient_id",
    "person",
    "series_id",
    "target",
    "any_injury",
    "weight",
    "label",
    "grade",
    "score",
    "ensemble",
    "volume",
    "mean",
    "max",
    "sequence",
    "high_logit",
    "assessed",
    "phase",
    "side",
    "lesion_mm",
    "lesion_ml",
    "contrast_hu",
    "fold",
)
TEXTS = {"patient_id", "person", "series_id", "target", "phase", "side"}
Progress = Callable[[str, float], None]


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def score_data(
    folder: Path,
    nets: Networks,
    *,
    table: CutoffTable | None = None,
    strict: bool = False,
    out: Path | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] = to_stderr,
) -> list[Row]:
    """Score every series of a data set in the RSNA-2023 layout.

    Targets that the bundle was not trained for have no rows. `out`: a CSV that grows with every
    series, and from which an interrupted run goes on. One series is in memory at a time. Raises
    LayoutError.
    """
    data = read_layout(folder, strict=strict)
    for note in data.notes:
        log(note)
    targets = [t for t in TARGETS if nets.slices.members[t] and (not table or t in table.targets)]
    rows = read(out) if out is not None and usable(out) else []
    done = {(r["patient_id"], r["series_id"]) for r in rows}
    tasks = [(p, s) for p in data.patients for s in p.series]
    for i, (patient, files) in enumerate(tasks):
        if (patient.patient_id, files.series_id) not in done:
            case = case_from(patient, files)
            new = rows_of(case, look(case, nets, targets), targets=targets, table=table)
            rows += new
            if out is not None:
                append(out, FIELDS, new)
        if progress is not None:
            progress(f"scored {i + 1} of {len(tasks)} series", (i + 1) / len(tasks))
    return rows


def dice(anatomy: Anatomy, entry: Entry) -> dict[Organ, float]:
    """Dice of the localiser against the truth, for the organs that the truth knows."""
    found = anatomy.labels.as_tensor()[0]
    truth = torch.from_numpy(np.array(entry.labels[0])).permute(2, 1, 0)
    out = {}
    for organ, value in ORGAN_LABEL.items():
        same = overlap(found == value, truth == value)
        if organ in entry.known and same is not None:
            out[organ] = same
    return out


def overlap(a: Mask, b: Mask) -> float | None:
    """Dice coefficient of two masks of one shape; None where both are empty."""
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else None


def score_all(
    entries: Sequence[Entry], nets: Networks, out: Path, log: Callable[[str], None] = print
) -> list[Row]:
    """Score cached patients into a CSV; those that are in it already are not scored again."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {r["patient_id"] for r in read(out)} if usable(out) else set()
    overlaps = out.with_name(out.stem + "_dice.csv")
    for i, entry in enumerate(entries):
        if entry.patient_id in done:
            continue
        case = case_of(entry)
        seen = look(case, nets)
        append(out, FIELDS, rows_of(case, seen))
        if seen.anatomy is not None:
            overlap = dice(seen.anatomy, entry)
            organs: Row = {"patient_id": entry.patient_id}
            organs |= {o.value: v for o, v in overlap.items()}
            append(overlaps, ("patient_id", *(o.value for o in Organ)), [organs])
        log(f"scored {i + 1}/{len(entries)}")
    return read(out)


def usable(path: Path) -> bool:
    """Whether there is a score table to go on with; one with other columns is taken away."""
    if not path.exists():
        return False
    with path.open(newline="") as file:
        same = next(csv.reader(file), None) == list(FIELDS)
    if not same:  # another version of this program wrote it
        path.unlink()
    return same


def append(path: Path, fields: Sequence[str], rows: Iterable[Row]) -> None:
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def whole_series(path: Path, targets: int) -> set[tuple[str, str]]:
    """(patient, series) with a row of each target; what a kill left in half is taken out."""
    if not usable(path):
        return set()
    lines = path.read_text().splitlines(keepends=True)
    if not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]))
    rows = read(path)
    keys = [(str(r["patient_id"]), str(r["series_id"])) for r in rows]
    whole = {k for k in keys if keys.count(k) == targets}
    if not whole:
        path.unlink()
    elif len(whole) * targets != len(rows):
        part = path.with_name(f".{path.name}")
        part.unlink(missing_ok=True)
        append(part, FIELDS, [r for r, k in zip(rows, keys, strict=True) if k in whole])
        part.replace(path)
    return whole


def read(path: Path) -> list[Row]:
    """Rows of a score table; numbers as numbers, empty ones NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v if k in TEXTS else float(v or "nan") for k, v in r.items()} for r in rows]
