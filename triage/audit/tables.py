"""The label tables beside the images (RSNA layout), read leniently: contradictions are findings."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

STEMS = ("train", "image_level_labels", "train_series_meta")
IMAGE_TARGETS = {"Active_Extravasation": "extravasation", "Bowel": "bowel"}
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Tables:
    """Rows by patient and by series; empty where a table is not there."""

    patients: Mapping[str, Rows] = field(default_factory=dict)
    images: Mapping[str, Rows] = field(default_factory=dict)  # by patient
    series: Mapping[str, Rows] = field(default_factory=dict)  # by series


def read(root: Path) -> Tables:
    """Tables of a folder; of those that are missing nothing is said."""
    found = [_rows(root, stem) for stem in STEMS]
    by = ("patient_id", "patient_id", "series_id")
    return Tables(*(_grouped(rows, key) for rows, key in zip(found, by, strict=True)))


def _rows(root: Path, stem: str) -> Rows:
    for name in (f"{stem}.csv", f"{stem}_2024.csv"):
        path = root / name
        if path.is_file():
            with path.open(newline="", encoding="utf-8-sig") as file:
                return [{k: v for k, v in row.items() if k} for row in csv.DictReader(file)]
    return []


def _grouped(rows: Rows, key: str) -> dict[str, Rows]:
    out: dict[str, Rows] = defaultdict(list)
    for row in rows:
        out[row.get(key, "")].append(row)
    return dict(out)


def number(row: Mapping[str, str], name: str) -> float | None:
    try:
        return float(row[name])
    except (KeyError, TypeError, ValueError):
        return None


def injured(row: Mapping[str, str], target: str) -> bool | None:
    """Whether a row of the patients' table says so; None if it says nothing of the target."""
    healthy, injury = number(row, f"{target}_healthy"), number(row, f"{target}_injury")
    if injury is not None:
        return injury == 1
    return None if healthy is None else healthy == 0
