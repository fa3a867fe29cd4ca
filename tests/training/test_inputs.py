"""A bundle gets its reference from reports, and stays a whole bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from triage.nets.bundle import MANIFEST, REPOSITORY_MODELS, manifest_sha256, read_bytes
from triage.results.figures import INPUTS, Many
from triage.training.inputs import FEWEST, main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "bundle"
    out.mkdir()
    shutil.copy(REPOSITORY_MODELS / "reference" / MANIFEST, out)
    return out


def write_reports(place: Path, number: int) -> Path:
    for k in range(number):
        (place / str(k)).mkdir(parents=True)
        report = {
            "status": "analysed",
            "series": [{"phase": "portal_venous", "slices": 100 + k}],
            "quality": [{"noise_hu": 10 + k / 100, "spacing_mm": [0.7, 0.7, 5.0]}],
            "targets": {},
        }
        (place / str(k) / "report.json").write_text(json.dumps(report))
    return place


def test_reports_become_the_reference(folder: Path, tmp_path: Path) -> None:
    before = manifest_sha256(folder)
    assert main([str(folder), str(write_reports(tmp_path / "reports", FEWEST))]) == 0
    many = Many.from_bytes(read_bytes(folder, INPUTS))  # after its sha256 was checked
    assert many.studies == FEWEST and many.counts["phase"] == {"portal_venous": FEWEST}
    assert manifest_sha256(folder) != before


def test_few_reports_are_no_reference(folder: Path, tmp_path: Path) -> None:
    before = manifest_sha256(folder)
    assert main([str(folder), str(write_reports(tmp_path / "reports", FEWEST - 1))]) == 1
    assert main([str(folder)]) == 2
    assert manifest_sha256(folder) == before and not (folder / INPUTS).exists()
