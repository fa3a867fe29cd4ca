"""The results of a cohort as one table: a row a study, as CSV or Parquet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from triage.files import write_atomic
from triage.service.records import Database, cohorts
from triage.service.records.models import Analysis, CohortStudy, Study
from triage.types import TARGETS, Target

# Column -> type, in the order of the table; those of the targets follow.
COLUMNS: dict[str, type] = {
    "folder": str,
    "study_instance_uid": str,
    "status": str,
    "reason": str,
    "priority": str,
    "images": int,
    "seconds": float,
    "bundle": str,
    "bundle_version": str,
    "bundle_sha256": str,
    "calibrated_on": str,
}
TARGET_COLUMNS: dict[str, type] = {
    "verdict": str,
    "probability": float,
    "reason": str,
    "series_instance_uid": str,
    "rule_out": float,
    "rule_in": float,
}
_STEERS = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet takes such a cell for a formula


def columns() -> dict[str, type]:
    """Every column of the table with its type."""
    found = dict(COLUMNS)
    for target in TARGETS:
        found |= {f"{target}_{name}": kind for name, kind in TARGET_COLUMNS.items()}
        if target is Target.KIDNEY:
            found["kidney_side"] = str
        if target in (Target.KIDNEY, Target.LIVER, Target.SPLEEN):
            found[f"{target}_grade"] = str
    return found


def rows(database: Database, cohort_id: str) -> list[dict[str, Any]]:
    """The table: one row for each folder, absent values None."""
    with database.reading() as session:
        found = [_row(*each) for each in cohorts.results(session, cohort_id)]
    return [{name: row.get(name) for name in columns()} for row in found]


def _row(entry: CohortStudy, study: Study | None, analysis: Analysis | None) -> dict[str, Any]:
    row: dict[str, Any] = {"folder": entry.folder, "status": "waiting", "reason": entry.reason}
    if entry.reason is not None:
        row |= {"status": "not_analysed", "priority": "urgent"}
    if study is None:
        return row
    row |= {
        "study_instance_uid": study.study_instance_uid,
        "status": str(study.status),
        "reason": study.reason,
        "priority": study.priority,
        "images": study.instance_count,
    }
    report = (analysis.report if analysis is not None else None) or {}
    bundle = report.get("bundle") or {}
    row |= {
        "seconds": (report.get("timings") or {}).get("total_s"),
        "bundle": bundle.get("name"),
        "bundle_version": bundle.get("version"),
        "bundle_sha256": bundle.get("sha256"),
        "calibrated_on": bundle.get("calibrated_on"),
    }
    for name, target in (report.get("targets") or {}).items():
        row |= {f"{name}_{key}": target.get(key) for key in (*TARGET_COLUMNS, "side", "grade")}
        for cutoff in ("rule_out", "rule_in"):
            row[f"{name}_{cutoff}"] = (target.get(cutoff) or {}).get("cutoff")
    return row


def write_csv(table: list[dict[str, Any]], path: Path) -> None:
    """RFC 4180, UTF-8. Cells that a spreadsheet would run begin with an apostrophe."""
    import io

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns()), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in table)
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_STEERS) else value


def write_parquet(table: list[dict[str, Any]], path: Path) -> None:
    """Raises ImportError without pyarrow (the extra `table`)."""
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns().items()])
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table, schema=schema), sink)
    write_atomic(path, sink.getvalue().to_pybytes())
