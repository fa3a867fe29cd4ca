"""Reader of the layout of the RSNA 2023 Abdominal Trauma Detection data set.

    train_images/<patient_id>/<series_id>/<instance_number>.dcm (or .png, .jpg)
    train.csv (or train_2024.csv)        labels of the patients
    image_level_labels[_2024].csv        instances that show extravasation or bowel injury; optional
    train_series_meta[_2024].csv         aortic_hu, incomplete_organ; optional
    segmentations/<series_id>.nii[.gz]   organs: 1 liver, 2 spleen, 3 left, 4 right kidney, 5 bowel
    lesions/<series_id>_<target>.nii.gz, train_images/<patient_id>/truth.json    simulated sets
    folds.csv                            patient_id, fold (a number or `calibration`), [person]

A table may label some of the targets only. Nothing is guessed: a table that contradicts itself is
a `LayoutError` with file and row, as a spreadsheet shows it (the header is row 1).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triage.simulate.tables import IMAGE_LABEL, IMAGES, SERIES, SOLID, TRAIN
from triage.types import TARGETS, Target

SUFFIXES = {".dcm": "dicom", ".png": "images", ".jpg": "images", ".jpeg": "images"}
LEVELS = {t: ("healthy", "low", "high") if t in SOLID else ("healthy", "injury") for t in TARGETS}
CALIBRATION = "calibration"
FOLD_COLUMNS = ("patient_id", "fold", "person")
NAMED = 20  # so many patients are named in a note, the others counted


class LayoutError(ValueError):
    """The data cannot be used: which file, which row, and what is wrong."""

    def __init__(self, path: Path, row: int | None, problem: str) -> None:
        where = path.name if row is None else f"{path.name}, row {row}"
        super().__init__(f"{where}: {problem}")


@dataclass(frozen=True)
class SeriesFiles:
    """One series on disk. `images[target]`: instance numbers that show the target's injury."""

    series_id: str
    kind: str  # "dicom" or "images"
    folder: Path
    files: tuple[Path, ...]  # by instance number
    images: Mapping[Target, frozenset[int]] = field(default_factory=dict)
    aortic_hu: float | None = None
    segmentation: Path | None = None
    lesions: Mapping[Target, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Patient:
    """A labelled patient. `grades`: 0 none, 1 present or low, 2 high, for the labelled targets.

    Patients of one `person` (an anatomy, a family of simulations) stay on one side of every split.
    """

    patient_id: str
    grades: Mapping[Target, int]
    any_injury: bool
    person: str
    simulated: bool
    fold: str | None
    series: tuple[SeriesFiles, ...]
    truth: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """The patients that have images, and what was left out."""

    folder: Path
    patients: tuple[Patient, ...]
    targets: tuple[Target, ...]  # labelled ones
    notes: tuple[str, ...] = ()

    @property
    def simulated(self) -> bool:
        """One simulated patient makes the set a simulated one."""
        return any(p.simulated for p in self.patients)


def read_layout(folder: Path, *, strict: bool = False) -> DataSet:
    """Read the tables and find the images.

    Labelled patients without images are left out, counted and named in `notes`; with `strict` they
    are an error. Raises LayoutError.
    """
    table = _one_of(folder, "train")
    if table is None:
        raise LayoutError(folder / "train.csv", None, f"not found, nor train_2024.csv, in {folder}")
    labels = _labels(table)
    shows = _image_labels(folder, labels)
    meta = _series_meta(folder, labels)
    folds = _folds(folder, labels)
    patients: list[Patient] = []
    absent: list[str] = []
    empty: list[str] = []
    for name, (grades, any_injury) in labels.items():
        place = folder / "train_images" / name
        series = tuple(_series_of(folder, place, shows, meta, empty)) if place.is_dir() else ()
        if not series:
            absent.append(name)
            continue
        truth = _truth(place)
        fold, person = folds.get(name, (None, None))
        patients.append(
            Patient(
                name,
                grades,
                any_injury,
                person or _person(name, truth),
                truth.get("simulated") is True,
                fold,
                series,
                truth,
            )
        )
    notes = list(_notes(folder, labels, absent, empty))
    if absent and strict:
        raise LayoutError(table, None, notes[0])
    if not patients:
        raise LayoutError(table, None, f"no patient has images in {folder / 'train_images'}")
    _persons_agree(folder, patients)
    return DataSet(folder, tuple(patients), tuple(next(iter(labels.values()))[0]), tuple(notes))


def _one_of(folder: Path, stem: str) -> Path | None:
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


def _labels(path: Path) -> dict[str, tuple[dict[Target, int], bool]]:
    """Grades of the labelled targets, and whether there is any injury, by patient."""
    out: dict[str, tuple[dict[Target, int], bool]] = {}
    first: dict[str, int] = {}
    for row, values in _rows(path, TRAIN):
        name = _name(path, row, values["patient_id"])
        grades = {t: g for t in TARGETS if (g := _grade(path, row, t, values)) is not None}
        if not grades:
            raise LayoutError(path, row, "no target has all its columns")
        injured = any(grades.values())
        if "any_injury" in values:
            told = _flag(path, row, "any_injury", values)
            if injured and not told:
                raise LayoutError(path, row, f"patient {name} has an injury, and any_injury is 0")
            injured = injured or bool(told)
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


def _image_labels(
    folder: Path, labels: Mapping[str, Any]
) -> dict[tuple[str, str], dict[Target, frozenset[int]]]:
    """Instance numbers that show an injury, by patient and series."""
    path = _one_of(folder, "image_level_labels")
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


def _series_meta(folder: Path, labels: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Aortic HU by patient and series; impossible values (one is about -1000) are left out."""
    path = _one_of(folder, "train_series_meta")
    out = {}
    for row, values in _rows(path, SERIES, SERIES[:2]) if path else ():
        try:
            hu = float(values["aortic_hu"]) if values.get("aortic_hu") else None
        except ValueError:
            raise LayoutError(path or folder, row, f"aortic_hu {values['aortic_hu']!r}") from None
        if hu is not None and -50 < hu < 1500:
            out[values["patient_id"], values["series_id"]] = hu
    return out


def _folds(folder: Path, labels: Mapping[str, Any]) -> dict[str, tuple[str | None, str | None]]:
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


def _persons_agree(folder: Path, patients: list[Patient]) -> None:
    """Patients of one person are in one fold also where truth.json, not folds.csv, groups them."""
    seen: dict[str, Patient] = {}
    for p in patients:
        other = seen.setdefault(p.person, p)
        if other.fold != p.fold:
            both = f"patients {other.patient_id} and {p.patient_id} are one person ({p.person})"
            raise LayoutError(
                folder / "folds.csv", None, f"{both} in folds {other.fold} and {p.fold}"
            )


def _series_of(
    folder: Path,
    place: Path,
    shows: Mapping[tuple[str, str], Mapping[Target, frozenset[int]]],
    meta: Mapping[tuple[str, str], float],
    empty: list[str],
) -> Iterator[SeriesFiles]:
    for where in sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")):
        kinds: dict[str, list[Path]] = {}
        for path in where.iterdir():
            if kind := SUFFIXES.get(path.suffix.lower()):
                kinds.setdefault(kind, []).append(path)
        kind = "dicom" if "dicom" in kinds else "images"  # HU are worth more than grey levels
        if not kinds:
            empty.append(f"{place.name}/{where.name}")
            continue
        key = place.name, where.name
        yield SeriesFiles(
            where.name,
            kind,
            where,
            tuple(sorted(kinds[kind], key=_number)),
            shows.get(key, {}),
            meta.get(key),
            _mask(folder / "segmentations", where.name),
            {t: m for t in TARGETS if (m := _mask(folder / "lesions", f"{where.name}_{t}"))},
        )


def _number(path: Path) -> tuple[int, str]:
    return (int(path.stem), "") if path.stem.isdigit() else (1 << 60, path.stem)


def _mask(folder: Path, stem: str) -> Path | None:
    for suffix in (".nii.gz", ".nii"):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    return None


def _truth(place: Path) -> dict[str, Any]:
    path = place / "truth.json"
    if not path.is_file():
        return {}
    try:
        truth: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise LayoutError(path, None, f"no JSON: {error}") from None
    return truth


def _person(name: str, truth: Mapping[str, Any]) -> str:
    """Simulated patients that were put into one background CT share an anatomy."""
    background = (truth.get("settings") or {}).get("background")
    return f"background {background}" if background else name


def _notes(
    folder: Path, labels: Mapping[str, Any], absent: list[str], empty: list[str]
) -> Iterator[str]:
    if absent:
        yield f"{len(absent)} labelled patients have no images: {_some(absent)}"
    if empty:
        yield f"{len(empty)} series folders hold no .dcm, .png or .jpg: {_some(empty)}"
    images = folder / "train_images"
    found = {p.name for p in images.iterdir() if p.is_dir()} if images.is_dir() else set()
    strangers = sorted(n for n in found - labels.keys() if not n.startswith("."))
    if strangers:
        yield f"{len(strangers)} patients with images have no labels: {_some(strangers)}"


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
