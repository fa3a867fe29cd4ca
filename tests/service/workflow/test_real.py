"""The whole way with the real pipeline: a folder of DICOM goes in, a row of the table comes out."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from triage.results.report import report_schema
from triage.simulate.study import write_dataset
from triage.types import TARGETS


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated patient, coarse and with one series."""
    out = tmp_path_factory.mktemp("simulated")
    write_dataset(out, 1, 5, spacing=(4.0, 4.0, 6.0), matrix=96, injured=True)
    series = min((out / "train_images").glob("*/*"))
    return series


@pytest.mark.long
def test_submit_and_wait(patient: Path, tmp_path: Path) -> None:
    home, table = tmp_path / "home", tmp_path / "out.csv"
    command = [sys.executable, "-m", "triage", "submit", str(patient), "--wait"]
    done = subprocess.run(
        [*command, "--name", "one", "--csv", str(table)],
        env=os.environ | {"TRIAGE_HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cohort one: 1 studies found, 1 of them new" in done.stdout
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["status"], row["reason"]) == ("analysed", "")
    assert row["bundle"] == "reference"
    assert all(row[f"{target}_verdict"] for target in TARGETS)
    (path,) = home.glob("analyses/*/*/*/report.json")
    report = json.loads(path.read_text())
    jsonschema.Draft202012Validator(report_schema()).validate(report)
    assert not [w for w in report["warnings"] if w.startswith("INCOMPLETE_SERIES")]
    assert report["study_instance_uid"] == row["study_instance_uid"]
    assert {o for t in report["targets"].values() for o in t["overlays"]} <= {
        str(p.relative_to(path.parent)) for p in path.parent.rglob("*.png")
    }
    assert list((home / "work").rglob("*.dcm")) == []  # nothing is left of the work
