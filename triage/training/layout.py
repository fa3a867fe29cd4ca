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

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triage.training import layout_tables as tables
from triage.training.layout_tables import LayoutError
from triage.types import TARGETS, Target

SUFFIXES = {".dcm": "dicom", ".png": "images", ".jpg": "images", ".jpeg": "images"}
NAMED = 20  # so many patients are named in a note, the others counted


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

    `any_injury`: None where the labelled targets are free, others are not labelled, and the table
    does not say.

    Patients of one `person` (an anatomy, a family of simulations) stay on one side of every split.
    """

    patient_id: str
    grades: Mapping[Target, int]
    any_injury: bool | None
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
    table = tables.one_of(folder, "train")
    if table is None:
        raise LayoutError(folder / "train.csv", None, f"not found, nor train_2024.csv, in {folder}")
    labels = tables.read_labels(table)
    shows = tables.read_image_labels(folder, labels)
    meta = tables.read_series_meta(folder, labels)
    folds = tables.read_folds(folder, labels)
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
