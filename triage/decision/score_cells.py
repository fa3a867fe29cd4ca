"""Cells of a score table, checked one by one; the message of an error names the row."""

from __future__ import annotations

import math
from collections.abc import Mapping

from triage.types import TARGETS, Target

Row = Mapping[str, object]
GRADES = (0.0, 1.0, 2.0)


class ScoreError(ValueError):
    """A score table cannot be used; the message names the row."""


def text(row: Row, name: str, line: int) -> str:
    text = cell(row, name)
    if not text:
        raise ScoreError(f"row {line}: no {name}")
    return text


def cell(row: Row, name: str) -> str:
    """Text of a cell; empty where the column is absent or, in memory, None."""
    value = row.get(name)
    return "" if value is None else str(value).strip()


def target(row: Row, line: int) -> Target:
    name = text(row, "target", line).lower()
    try:
        return Target(name)
    except ValueError:
        known = ", ".join(t.value for t in TARGETS)
        raise ScoreError(f"row {line}: unknown target {name!r}; expected one of {known}") from None


def number(row: Row, name: str, line: int) -> float:
    """A finite number, or NaN for an empty cell, `nan` or an absent column."""
    text = cell(row, name)
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise ScoreError(f"row {line}: expected a number as {name}, got {text[:40]!r}") from None
    if math.isinf(value):
        raise ScoreError(f"row {line}: expected a finite number as {name}, got {text[:40]!r}")
    return value


def label(row: Row, line: int) -> int:
    value = number(row, "label", line)
    if value not in (0.0, 1.0):
        raise ScoreError(f"row {line}: expected label 0 or 1, got {row.get('label')!r}"[:200])
    return int(value)


def assessed(row: Row, line: int) -> bool:
    text = cell(row, "assessed").lower()
    if text in ("", "true"):
        return True
    if text == "false":
        return False
    value = number(row, "assessed", line)
    if value not in (0.0, 1.0):
        raise ScoreError(f"row {line}: expected assessed 0 or 1, got {text[:40]!r}")
    return value == 1.0


def check_grade(grade: float, label: int, line: int) -> None:
    if math.isnan(grade):
        return
    if grade not in GRADES:
        raise ScoreError(f"row {line}: expected grade 0, 1 (low) or 2 (high), got {grade:g}")
    if (grade > 0) != (label == 1):
        raise ScoreError(f"row {line}: label {label} contradicts grade {grade:g}")
