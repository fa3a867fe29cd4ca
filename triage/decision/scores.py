"""Score tables: one row a patient (or series) and target, checked row by row.

Required columns: `patient_id, target, label, score`. A patient counts once: the highest score of
his or her assessed series, the highest label. Everything that contradicts itself is refused with
the number of the row, as a spreadsheet shows it (the header is row 1).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triage.decision import score_cells as cells
from triage.decision.score_cells import Row, ScoreError
from triage.types import TARGETS, Target

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REQUIRED = ("patient_id", "target", "label", "score")
BRANCHES = ("ensemble", "volume", "mean", "max", "sequence")  # logits of the branches
NUMBERS = ("score", *BRANCHES, "lesion_mm", "lesion_ml", "contrast_hu", "high_logit")
# Known and of no use here: what scoring writes for people who look into the table.
IGNORED = ("phase", "side", "fold", "slices", "spacing_mm", "aortic_hu", "incomplete_organ")
OF_PATIENT = ("person", "any_injury", "weight")
COLUMNS = (*REQUIRED, *OF_PATIENT, "series_id", "grade", "assessed", *NUMBERS[1:], *IGNORED)
WITHOUT_ANY = "without any injury"


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Rows as columns of length n, and the patients they belong to.

    `patients`, `persons`: (P,) names, in order of appearance; `person` is the patient where the
    table does not say otherwise. `targets`: those that occur, in the order of `types.TARGETS`.
    `patient`, `target`: (n,) indices into them. `values`: columns (n,), NaN where empty.
    `any_injury`: (P,) in {0, 1} of the column of that name, NaN where it is empty: has the patient
    an injury, judged here or not? `weights`: (P,) of the column `weight`, how many patients of the
    population this one stands for, in any unit; None where the table has none.
    """

    patients: tuple[str, ...]
    persons: tuple[str, ...]
    targets: tuple[Target, ...]
    patient: Ints
    target: Ints
    label: Ints
    assessed: NDArray[np.bool_]
    values: Mapping[str, Floats]
    any_injury: Floats
    weights: Floats | None = None
    notes: tuple[str, ...] = ()

    def worst(self, rows: Floats) -> Floats:
        """(n,) -> (P, targets): the highest over a patient's assessed rows, NaN without any."""
        out = np.full((len(self.patients), len(self.targets)), np.nan)
        a = self.assessed
        np.fmax.at(out, (self.patient[a], self.target[a]), rows[a])
        return out

    def highest(self, column: str) -> Floats:
        """(P, targets) of a column that describes the patient (grade, lesion), assessed or not."""
        out = np.full((len(self.patients), len(self.targets)), np.nan)
        if column in self.values:
            np.fmax.at(out, (self.patient, self.target), self.values[column])
        return out

    @property
    def labels(self) -> Floats:
        """(P, targets) in {0, 1}; NaN where a patient has no row for a target."""
        out = np.full((len(self.patients), len(self.targets)), np.nan)
        np.fmax.at(out, (self.patient, self.target), self.label.astype(np.float64))
        return out

    @property
    def scores(self) -> Floats:
        """(P, targets): the highest `score`; NaN where not assessed."""
        return self.worst(self.values["score"])

    @property
    def injured(self) -> Floats:
        """(P,) in {0, 1}: `any_injury` where it is known, else what the labels say.

        NaN where that leaves it open: no label is 1, and one is missing.
        """
        labels = self.labels
        judged = np.where((labels == 0).all(axis=1), 0.0, np.nan)
        judged[(labels == 1).any(axis=1)] = 1.0
        return np.where(np.isnan(self.any_injury), judged, self.any_injury)

    @property
    def healthy(self) -> NDArray[np.bool_]:
        """(P,): see `healthy_means`."""
        return np.asarray(self.injured == 0)

    @property
    def healthy_means(self) -> str:
        """What is known of the healthy: without any injury, or free of the judged targets only."""
        if self.targets == TARGETS or not np.isnan(self.any_injury[self.healthy]).any():
            return WITHOUT_ANY
        return f"free of the judged targets ({', '.join(self.targets)})"

    def has(self, column: str) -> bool:
        """True if the column holds a number in an assessed row."""
        return column in self.values and bool(np.isfinite(self.values[column][self.assessed]).any())


def read_scores(path: Path) -> ScoreTable:
    """Read a CSV (UTF-8, comma). ScoreError names the row; OSError if it cannot be opened."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            if len(set(header)) != len(header):
                raise ScoreError(f"row 1: a column occurs twice in {', '.join(header)}")
            reader.fieldnames = header
            check_columns(header)
            return from_rows(_whole(reader))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScoreError(f"Expected a CSV in UTF-8, got {path.name}: {error}") from error


def _whole(rows: Iterable[dict[str, str]]) -> Iterator[Row]:
    """Rows with as many cells as the header (csv fills up with None)."""
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ScoreError(f"row {line}: more or fewer cells than columns")
        yield row


def check_columns(header: Sequence[str]) -> None:
    """Refuse missing columns, and unknown ones: a misspelt column would be ignored in silence."""
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise ScoreError(
            f"row 1: missing column {', '.join(missing)}; expected {', '.join(REQUIRED)}"
        )
    unknown = [name for name in header if name not in COLUMNS]
    if unknown:
        raise ScoreError(
            f"row 1: unknown column {', '.join(map(repr, unknown))}; known: {', '.join(COLUMNS)}"
        )


def from_rows(rows: Iterable[Row]) -> ScoreTable:
    """A table from rows in memory (`scoring` makes them) or of a CSV reader."""
    builder = _Builder()
    for line, row in enumerate(rows, start=2):
        builder.add(line, row)
    return builder.table()


class _Builder:
    """Collects checked rows; remembers per patient what later rows must not contradict."""

    def __init__(self) -> None:
        self.patients: dict[str, int] = {}
        self.persons: dict[str, tuple[str, int]] = {}
        self.injured: dict[str, tuple[float, int]] = {}
        self.weights: dict[str, tuple[float, int]] = {}
        self.labels: dict[tuple[str, Target, str], tuple[int, int]] = {}
        self.index: list[tuple[int, Target, int, bool]] = []
        self.values: dict[str, list[float]] = {name: [] for name in (*NUMBERS, "grade")}

    def add(self, line: int, row: Row) -> None:
        patient, target = cells.text(row, "patient_id", line), cells.target(row, line)
        label = cells.label(row, line)
        series = cells.cell(row, "series_id")
        before = self.labels.setdefault((patient, target, series), (label, line))
        if before[0] != label:
            raise ScoreError(
                f"row {line}: patient {patient!r} has label {label} for {target}, "
                f"but {before[0]} in row {before[1]}"
            )
        person = cells.cell(row, "person") or patient
        known = self.persons.setdefault(patient, (person, line))
        if known[0] != person:
            raise ScoreError(
                f"row {line}: patient {patient!r} is person {person!r}, "
                f"but {known[0]!r} in row {known[1]}"
            )
        self._injured(line, row, patient, label)
        self._weight(line, row, patient)
        assessed = cells.assessed(row, line)
        values = {name: cells.number(row, name, line) for name in (*NUMBERS, "grade")}
        if "score" not in row:  # rows in memory: the branches' logits say enough
            either = [values[name] for name in ("ensemble", "volume")]
            values["score"] = next((v for v in either if not math.isnan(v)), math.nan)
        if assessed and math.isnan(values["score"]):
            raise ScoreError(
                f"row {line}: no score; where a target was not assessed, say so (assessed = 0)"
            )
        cells.check_grade(values["grade"], label, line)
        for name, value in values.items():
            self.values[name].append(value)
        number = self.patients.setdefault(patient, len(self.patients))
        self.index.append((number, target, label, assessed))

    def _injured(self, line: int, row: Row, patient: str, label: int) -> None:
        """Any injury of the patient: the same in every row, and never 0 beside a label 1."""
        told = cells.number(row, "any_injury", line)
        if not (math.isnan(told) or told in (0.0, 1.0)):
            raise ScoreError(f"row {line}: expected any_injury 0 or 1, got {told:g}")
        if label and told == 0:
            raise ScoreError(f"row {line}: label 1 contradicts any_injury 0")
        before = self.injured.setdefault(patient, (told, line))
        if before[0] != told and not (math.isnan(before[0]) and math.isnan(told)):
            raise ScoreError(
                f"row {line}: patient {patient!r} has another any_injury in row {before[1]}"
            )

    def _weight(self, line: int, row: Row, patient: str) -> None:
        """Weight of the patient: the same in every row, and above 0."""
        told = cells.number(row, "weight", line)
        if told <= 0:
            raise ScoreError(f"row {line}: expected a weight above 0, got {told:g}")
        before = self.weights.setdefault(patient, (told, line))
        if before[0] != told and not (math.isnan(before[0]) and math.isnan(told)):
            raise ScoreError(
                f"row {line}: patient {patient!r} has another weight in row {before[1]}"
            )

    def table(self) -> ScoreTable:
        if not self.index:
            raise ScoreError("Expected rows below the header, got none")
        targets = tuple(t for t in TARGETS if any(row[1] is t for row in self.index))
        patient, target, label, assessed = zip(*self.index, strict=True)
        values = {name: np.array(column) for name, column in self.values.items()}
        return ScoreTable(
            patients=tuple(self.patients),
            persons=tuple(self.persons[name][0] for name in self.patients),
            targets=targets,
            patient=np.array(patient, dtype=np.int64),
            target=np.array([targets.index(t) for t in target], dtype=np.int64),
            label=np.array(label, dtype=np.int64),
            assessed=np.array(assessed, dtype=bool),
            values={k: v for k, v in values.items() if not np.isnan(v).all()}
            | {"score": values["score"]},
            any_injury=np.array([self.injured[name][0] for name in self.patients]),
            weights=self._weights(),
            notes=self._notes(),
        )

    def _weights(self) -> Floats | None:
        """ScoreError where some patients have one and others not: they would count for nothing."""
        found = np.array([self.weights[name][0] for name in self.patients])
        without = np.isnan(found)
        if without.all():
            return None
        for name, none in zip(self.patients, without, strict=True):
            if none:
                line = self.weights[name][1]
                raise ScoreError(f"row {line}: patient {name!r} has no weight, but others have one")
        return found

    def _notes(self) -> tuple[str, ...]:
        seen: dict[tuple[str, Target], set[int]] = {}
        for (patient, target, _), (label, _) in self.labels.items():
            seen.setdefault((patient, target), set()).add(label)
        mixed = sum(len(found) > 1 for found in seen.values())
        if not mixed:
            return ()
        return (
            f"{mixed} patient(s) with different labels in different series: the highest counts",
        )
