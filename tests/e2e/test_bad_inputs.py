"""Every malformed or tricky input through the whole service: a reason, or the control's answer."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triage.inference.networks import Networks, load_networks
from triage.nets.bundle import find_bundle
from triage.pipeline import analyse
from triage.reasons import REASONS
from triage.settings import Settings
from triage.types import TARGETS, Report, Status

ROOT = Path(os.environ.get("TRIAGE_TEST_DATA", Path(__file__).parents[3] / "shared")) / "badinputs"


def _cases(*folders: str, expected: str) -> list[dict[str, str]]:
    if not (ROOT / "cases.tsv").is_file():
        return []
    with (ROOT / "cases.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [r for r in rows if r["case"].split("/")[0] in folders and r["expected"] == expected]


def _name(case: dict[str, str]) -> str:
    return case["case"]


@pytest.fixture(scope="module")
def networks() -> Networks:
    if not ROOT.is_dir():
        pytest.skip(f"test data not found at {ROOT}: set TRIAGE_TEST_DATA")
    return load_networks(find_bundle("reference"), "cpu")


@pytest.fixture(scope="module")
def control(networks: Networks) -> Report:
    report = analyse(ROOT / "geometry" / "good", networks=networks, settings=Settings())
    assert report.status is Status.ANALYSED
    return report


def _refused(case: dict[str, str], networks: Networks, out: Path) -> None:
    start = time.monotonic()
    analyse(ROOT / case["case"], out, networks=networks, settings=Settings())
    assert time.monotonic() - start < 30
    data = json.loads((out / "report.json").read_text())
    assert data["status"] == "not_analysed"
    assert data["targets"] == {}
    code = data["reason"]["code"]
    assert code in REASONS
    assert case["reason"].startswith("any") or code in case["reason"]
    assert [p.name for p in out.iterdir()] == ["report.json"]


REFUSED = ("geometry", "crafted", "dicom2nifti", "pydicom_data", "real")


@pytest.mark.parametrize("case", _cases(*REFUSED, expected="not_analysed"), ids=_name)
def test_refused(case: dict[str, str], networks: Networks, tmp_path: Path) -> None:
    _refused(case, networks, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("case", _cases("fuzz", expected="not_analysed"), ids=_name)
def test_fuzz_is_refused(case: dict[str, str], networks: Networks, tmp_path: Path) -> None:
    _refused(case, networks, tmp_path)


# Lossy voxels differ by a few HU; padding lies where the control has air.
NEAR = {"near_lossless": 0.05, "lossy": 0.05, "padding": 0.01}


def _assert_like(case: dict[str, str], report: Report, control: Report) -> None:
    assert report.status is Status.ANALYSED, report.reason
    close = next((value for word, value in NEAR.items() if word in case["case"]), 1e-3)
    for target in TARGETS:
        one, two = report.findings[target], control.findings[target]
        assert one.verdict is two.verdict
        assert one.probability == pytest.approx(two.probability, abs=close)


@pytest.mark.long
@pytest.mark.parametrize("case", _cases("geometry", "compressed", expected="analysed"), ids=_name)
def test_analysed_like_the_control(
    case: dict[str, str], networks: Networks, control: Report
) -> None:
    report = analyse(ROOT / case["case"], networks=networks, settings=Settings())
    _assert_like(case, report, control)


SAID = {
    "geometry/two_phases": "acquisition 1 of 2",
    "geometry/scout_in_series": "localizer image(s) taken out",
    "compressed/jpeg_extended_lossy": "lossy compression",
}


@pytest.mark.long
@pytest.mark.parametrize("case", _cases("geometry", "compressed", expected="either"), ids=_name)
def test_analysed_and_what_was_done_is_said(
    case: dict[str, str], networks: Networks, control: Report
) -> None:
    report = analyse(ROOT / case["case"], networks=networks, settings=Settings())
    assert any(SAID[case["case"]] in text for text in report.warnings)
    if case["case"] != "geometry/two_phases":  # there the worse of two phases counts
        _assert_like(case, report, control)


COMMAND_LINE = ("truncated_slice", "gantry_tilt", "element_length_4g.dcm", "deflate_bomb_200mb.dcm")


@pytest.mark.parametrize("name", COMMAND_LINE)
def test_the_command_says_it_on_one_line(name: str, tmp_path: Path) -> None:
    source = next(iter(ROOT.glob(f"*/{name}")), None)
    if source is None:
        pytest.skip(f"test data not found at {ROOT}: set TRIAGE_TEST_DATA")
    command = [sys.executable, "-m", "triage.cli.main", "run", str(source), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.split(":")[0] in REASONS]
    assert len(lines) == 1
    assert json.loads((tmp_path / "report.json").read_text())["status"] == "not_analysed"
