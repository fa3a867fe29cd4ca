"""The three CSV files of the RSNA 2023 layout, kept in step with the patients on disk.

A patient exists once its folder with truth.json is in place; rows follow in the same breath, under
a lock, so that two runs may fill one folder. `repair` writes the files anew from the patients.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from triage.types import TARGETS, Organ, Target

Truth = dict[str, Any]

SOLID = (Target.KIDNEY, Target.LIVER, Target.SPLEEN)
TRAIN = (
    "patient_id",
    *(f"{t}_{s}" for t in (Target.BOWEL, Target.EXTRAVASATION) for s in ("healthy", "injury")),
    *(f"{t}_{s}" for t in SOLID for s in ("healthy", "low", "high")),
    "any_injury",
)
IMAGES = ("patient_id", "series_id", "instance_number", "injury_name")
SERIES = ("patient_id", "series_id", "aortic_hu", "incomplete_organ")
FILES = {
    "train.csv": TRAIN,
    "image_level_labels.csv": IMAGES,
    "train_series_meta.csv": SERIES,
}
# Label values of the challenge's segmentations; aorta and spine are ours.
SEGMENTATION: dict[Organ, int] = {
    Organ.LIVER: 1,
    Organ.SPLEEN: 2,
    Organ.KIDNEY_LEFT: 3,
    Organ.KIDNEY_RIGHT: 4,
    Organ.BOWEL: 5,
    Organ.AORTA: 6,
    Organ.SPINE: 7,
}
IMAGE_LABEL = {Target.EXTRAVASATION: "Active_Extravasation", Target.BOWEL: "Bowel"}


def train_row(number: int, grades: dict[Target, int]) -> dict[str, Any]:
    """Row of train.csv from grades: 0 none, 1 present or low, 2 high."""
    row: dict[str, Any] = {"patient_id": number}
    for target in TARGETS:
        levels = ("healthy", "low", "high") if target in SOLID else ("healthy", "injury")
        for value, level in enumerate(levels):
            row[f"{target}_{level}"] = int(grades[target] == value)
    row["any_injury"] = int(any(grades.values()))
    return {column: row[column] for column in TRAIN}


def series_row(
    number: int, series: int, aortic_hu: float | None, incomplete: bool
) -> dict[str, Any]:
    """Row of train_series_meta.csv; aortic_hu stays empty where no aorta is labelled."""
    aorta = "" if aortic_hu is None else round(aortic_hu, 2)
    return dict(zip(SERIES, (number, series, aorta, int(incomplete)), strict=True))


def truth_of(out: Path, number: int) -> Truth | None:
    """truth.json of a complete patient, or None. Raises FileExistsError for a foreign folder."""
    folder = out / "train_images" / str(number)
    if not folder.exists():
        return None
    try:
        truth: Truth = json.loads((folder / "truth.json").read_text())
    except FileNotFoundError:
        raise FileExistsError(
            f"{folder} holds a patient that was not simulated. Choose another folder."
        ) from None
    return truth


def publish(out: Path, part: Path, truth: Truth) -> None:
    """Put a complete patient in place and add its rows."""
    with _locked(out):
        part.rename(out / "train_images" / str(truth["patient_id"]))
        for name, columns in FILES.items():
            text = _lines(columns, _rows(name, truth))
            with (out / name).open("ab", buffering=0) as file:
                file.write(text.encode())


def repair(out: Path, mine: set[int]) -> None:
    """Write the CSV files from the patients in `out`, sorted.

    Raises FileExistsError if a file names patients that were not simulated here and are none of
    `mine`: somebody's real labels must not be lost.
    """
    with _locked(out):
        numbers = sorted(
            int(path.parent.name) for path in (out / "train_images").glob("[0-9]*/truth.json")
        )
        for name in FILES:
            strangers = _named(out / name) - set(numbers) - mine
            if strangers:
                raise FileExistsError(
                    f"{out / name} names patients that were not simulated, such as "
                    f"{min(strangers)}. Choose another folder."
                )
        for name, columns in FILES.items():
            part = out / f".{name}"
            with part.open("w", newline="") as file:
                file.write(",".join(columns) + "\n")
                for number in numbers:
                    truth = truth_of(out, number)
                    assert truth is not None  # noqa: S101 - listed above
                    file.write(_lines(columns, _rows(name, truth)))
            part.replace(out / name)


def _rows(name: str, truth: Truth) -> Iterable[Iterable[Any]]:
    if name == "image_level_labels.csv":
        return [(truth["patient_id"], truth["series_id"], *image) for image in truth["images"]]
    row = truth["train" if name == "train.csv" else "series"]
    return [[row[column] for column in FILES[name]]]


def _lines(columns: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        values = list(row)
        assert len(values) == len(columns)  # noqa: S101 - a row of another file
        writer.writerow(values)
    return text.getvalue()


def _named(path: Path) -> set[int]:
    """Patients that a CSV file names; a last line without end was cut off and does not count."""
    if not path.exists():
        return set()
    text = path.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()[1:]
    found = set()
    for line in lines:
        first = line.split(",")[0]
        if not first.isdigit():
            raise FileExistsError(f"{path} is no table of this layout. Choose another folder.")
        found.add(int(first))
    return found


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
