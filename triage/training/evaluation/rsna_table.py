"""Predictions in the wide layout of the RSNA 2023 challenge, as a score table.

One row a series: `patient_id`, a `scan_id` or `series_id`, for each target `<target>_injury` or
`<organ>_{healthy,low,high}` (labels) and the same names with `_prediction` (probabilities).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from triage.decision.score_cells import ScoreError
from triage.decision.scores import ScoreTable, from_rows, read_scores
from triage.types import TARGETS, Target

SIGN = "bowel_injury_prediction"  # a column that no other table has
GRADED = (Target.KIDNEY, Target.LIVER, Target.SPLEEN)
CLIP = 1e-9


def read_table(path: Path) -> ScoreTable:
    """A score table, or predictions in the challenge's layout. ScoreError names the row."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        header = stream.readline()
    return read_predictions(path) if SIGN in header else read_scores(path)


def read_predictions(path: Path) -> ScoreTable:
    """Labels and predictions of all five targets; `score` is P(injury)."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    return from_rows(row for line, wide in enumerate(rows, start=2) for row in _long(wide, line))


def _long(wide: Mapping[str, str], line: int) -> Iterator[dict[str, object]]:
    """Five rows of a score table from one row of the file."""
    for target in TARGETS:
        graded = target in GRADED
        row: dict[str, object] = {
            "patient_id": wide.get("patient_id"),
            "series_id": wide.get("scan_id") or wide.get("series_id"),
            "target": target.value,
        }
        if graded:
            low, high = (_number(wide, f"{target}_{g}", line) for g in ("low", "high"))
            p_low, p_high = (
                _number(wide, f"{target}_{g}_prediction", line) for g in ("low", "high")
            )
            share = min(max(p_high / max(p_low + p_high, CLIP), CLIP), 1 - CLIP)
            row |= {
                "label": int(low + high > 0),
                "grade": 2 if high else int(low > 0),
                "score": 1 - _number(wide, f"{target}_healthy_prediction", line),
                "high_logit": math.log(share) - math.log1p(-share),
            }
        else:
            row |= {
                "label": int(_number(wide, f"{target}_injury", line) > 0),
                "score": _number(wide, f"{target}_injury_prediction", line),
            }
        yield row


def _number(wide: Mapping[str, str], name: str, line: int) -> float:
    try:
        value = float(wide[name])
    except (KeyError, TypeError, ValueError):
        raise ScoreError(
            f"row {line}: expected a number as {name}, got {wide.get(name)!r}"[:200]
        ) from None
    if not math.isfinite(value):
        raise ScoreError(f"row {line}: expected a finite number as {name}, got {value}")
    return value
