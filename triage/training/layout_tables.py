"""The CSV tables of the RSNA 2023 layout, row by row (see `layout`).

Nothing is guessed: what contradicts itself is a `LayoutError` with file and row, as a spreadsheet
shows it (the header is row 1).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from triage.simulate.tables import IMAGE_LABEL, IMAGES, SERIES, SOLID, TRAIN
from triage.types import TARGETS, Target

LEVELS = {t: ("healthy", "low", "high") if t in SOLID else ("healthy", "injury") for t in TARGETS}
CALIBRATION = "calibration"
FOLD_COLUMNS = ("patient_id", "fold", "person")


class LayoutError(ValueError):
    """The data cannot be used: which file, which row, and what is wrong."""

    def __init__(self, path: Path, row: int | None, problem: str) -> None:
        where = path.name if row is None else f"{path.name}, row {row}"
        super().__init__(f"{where}: {problem}")


def one_of(folder: Path, stem: str) -> Path | None:
    """`<stem>.csv` or `<stem>_2024.csv`; both are an error."""
    found = [p for p in (folder / f"{stem}.csv", folder / f"{stem}_2024.csv") if p.is_file()]
    if len(found) == 2:
        raise LayoutError(found[0], None, f"{found[1].name} is there too: which one counts?")
    return found[0] if found else None


def _rows(
    path: Path, columns: tuple[str, ...], needed: tuple[str, ...] = ("patient_id",)
) -> Iterator[tuple[int, dict[str, str]]]:
    """Row number and values of a table; unknown columns and rows of another length are errors."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [c.strip() for c in next(reader, [])]
        unknown = [c for c in header if c not in columns]
        if unknown or not set(needed) <= set(header) or len(set(header)) != len(header):
            expected = f"expected {', '.join(needed)} and some of {', '.join(columns)}, each once"
            raise LayoutError(path, 1, f"columns {', '.join(unknown or header)}; {expected}")
        for values in reader:
            if not values:
                continue
            row = reader.line_num
            if len(values) != len(header):
                raise LayoutError(path, row, f"{len(values)} values for {len(header)} columns")
            yield row, dict(zip(header, (v.strip() for v in values), strict=True))


def read_labels(path: Path) -> dict[str, tuple[dict[Target, int], bool | None]]:
    """Grades of the labelled targets, and whether there is any injury (if known), by patient."""
    out: dict[str, tuple[dict[Target, int], bool | None]] = {}
    first: dict[str, int] = {}
    for row, values in _rows(path, TRAIN):
        name = _name(path, row, values["patient_id"])
        grades = {t: g for t in TARGETS if (g := _grade(path, row, t, values)) is not None}
        if not grades:
            raise LayoutError(path, row, "no target has all its columns")
        injured = True if any(grades.values()) else None if len(grades) < len(TARGETS) else False
        if "any_injury" in values:
            told = bool(_flag(path, row, "any_injury", values))
            if injured and not told:
                raise LayoutError(path, row, f"patient {name} has an injury, and any_injury is 0")
            injured = told
        if name in out and out[name] != (grades, injured):
            raise LayoutError(path, row, f"patient {name} has other labels in row {first[name]}")
        first.setdefault(name, row)
        out[name] = grades, injured
    if not out:
        raise LayoutError(path, None, "no patient in it")
    return out


def _name(path: Path, row: int, text: str) -> str:
    if not text or "/" in text or text.startswith("."):
        raise LayoutError(path, row, f"{text!r} is no patient_id")
    return text


def _grade(path: Path, row: int, target: Target, values: Mapping[str, str]) -> int | None:
    columns = [f"{target}_{level}" for level in LEVELS[target]]
    present = [c for c in columns if c in values]
    if not present:
        return None
    if present != columns:
        raise LayoutError(path, 1, f"{', '.join(set(columns) - set(present))} is missing")
    flags = [_flag(path, row, c, values) for c in columns]
    if sum(flags) != 1:
        said = ", ".join(f"{c} {f}" for c, f in zip(columns, flags, strict=True))
        patient = values["patient_id"]
        raise LayoutError(path, row, f"patient {patient}: exactly one must be 1, got {said}")
    return flags.index(1)


def _flag(path: Path, row: int, column: str, values: Mapping[str, str]) -> int:
    if values[column] not in ("0", "1", "0.0", "1.0"):
        raise LayoutError(path, row, f"expected 0 or 1 in {column}, got {values[column]!r}")
    return int(float(values[column]))


def read_image_labels(
    folder: Path, labels: Mapping[str, Any]
) -> dict[tuple[str, str], dict[Target, frozenset[int]]]:
    """Instance numbers that show an injury, by patient and series."""
    path = one_of(folder, "image_level_labels")
    found: dict[tuple[str, str], dict[Target, set[int]]] = {}
    names = {name: target for target, name in IMAGE_LABEL.items()}
    for row, values in _rows(path, IMAGES, IMAGES) if path else ():
        if values.get("injury_name") not in names:
            raise LayoutError(
                path or folder, row, f"injury_name {values.get('injury_name')!r}, not of {[*names]}"
            )
        target, patient = names[values["injury_name"]], values["patient_id"]
        if patient in labels and labels[patient][0].get(target) == 0:
            raise LayoutError(
                path or folder, row, f"patient {patient} has no {target} injury in the labels"
            )
        if not values["instance_number"].isdigit():
            raise LayoutError(path or folder, row, f"instance {values['instance_number']!r}")
        series = found.setdefault((patient, values["series_id"]), {})
        series.setdefault(target, set()).add(int(values["instance_number"]))
    return {key: {t: frozenset(n) for t, n in v.items()} for key, v in found.items()}


def read_series_meta(folder: Path, labels: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Aortic HU by patient and series; impossible values (one is about -1000) are left out."""
    path = one_of(folder, "train_series_meta")
    out = {}
    for row, values in _rows(path, SERIES, SERIES[:2]) if path else ():
        try:
            hu = float(values["aortic_hu"]) if values.get("aortic_hu") else None
        except ValueError:
            raise LayoutError(path or folder, row, f"aortic_hu {values['aortic_hu']!r}") from None
        if hu is not None and -50 < hu < 1500:
            out[values["patient_id"], values["series_id"]] = hu
    return out


def read_folds(folder: Path, labels: Mapping[str, Any]) -> dict[str, tuple[str | None, str | None]]:
    """The user's own folds and persons; nobody may be in two."""
    path = folder / "folds.csv"
    out: dict[str, tuple[str | None, str | None]] = {}
    where: dict[str, tuple[str, int]] = {}
    for row, values in _rows(path, FOLD_COLUMNS) if path.is_file() else ():
        patient, fold = values["patient_id"], values.get("fold") or None
        if patient not in labels:
            raise LayoutError(path, row, f"patient {patient} is not in the labels")
        if fold is not None and fold != CALIBRATION and not fold.isdigit():
            raise LayoutError(path, row, f"fold {fold!r} is neither a number nor {CALIBRATION!r}")
        person = values.get("person") or None
        for who in {f"patient {patient}", f"person {person or patient}"}:
            if fold is not None and where.setdefault(who, (fold, row))[0] != fold:
                other = where[who]
                raise LayoutError(
                    path, row, f"{who} is in fold {fold}, and in fold {other[0]} in row {other[1]}"
                )
        out[patient] = fold, person
    return out
