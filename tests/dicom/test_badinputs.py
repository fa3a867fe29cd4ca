"""Every case of the malformed set ends as its table says."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import numpy as np
import pytest

from triage.dicom import decode, open_study
from triage.reasons import NotAnalysed
from triage.settings import Settings
from triage.types import Stack

ROOT = Path(os.environ.get("TRIAGE_TEST_DATA", Path(__file__).parents[3] / "shared")) / "badinputs"


def _cases(name: str = "cases.tsv", key: str = "case") -> list[dict[str, str]]:
    if not (ROOT / name).is_file():
        return []
    with (ROOT / name).open() as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [row | {"case": row[key]} for row in rows if not row[key].startswith("fuzz/")]


def _fuzz() -> list[Path]:
    return sorted((ROOT / "fuzz").rglob("*.dcm")) if ROOT.is_dir() else []


def _read(path: Path) -> list[Stack]:
    with open_study(path, Settings()) as study:
        return [decode(series, Settings()) for series in study.series]


@pytest.fixture(scope="module")
def control() -> Stack:
    if not ROOT.is_dir():
        pytest.skip(f"test data not found at {ROOT}: set TRIAGE_TEST_DATA")
    return _read(ROOT / "geometry" / "good")[0]


def _ascending(stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """HU and padding with columns to the left, rows to the back, slices upward."""
    flips = tuple(slice(None, None, -1 if sign < 0 else 1) for sign in (-1, -1, 1) * np.sign(
        np.diag(stack.affine)[:3]))  # fmt: skip
    padding = np.zeros(stack.hu.shape, bool) if stack.padding is None else stack.padding
    return stack.hu[flips].astype(int), padding[flips]


@pytest.mark.parametrize("case", _cases(), ids=lambda c: c["case"])
def test_case(case: dict[str, str], control: Stack) -> None:
    start = time.monotonic()
    try:
        stacks = _read(ROOT / case["case"])
    except NotAnalysed as error:
        assert case["expected"] != "analysed"
        assert case["reason"].startswith("any") or error.code in case["reason"]
        assert "\n" not in error.line()
        return
    finally:
        assert time.monotonic() - start < 30
    assert case["expected"] in ("analysed", "either")
    if case["case"] == "geometry/two_phases":
        assert {"acquisition 1", "acquisition 2"} == {s.notes[0][:13] for s in stacks}
        return
    (stack,) = stacks
    (hu, padding), (want, _) = _ascending(stack), _ascending(control)
    error = np.abs(hu - want)[~padding].max()
    assert error <= (10 if "lossy" in "".join(stack.notes) else 0)
    np.testing.assert_allclose(
        np.sort(np.abs(stack.affine), axis=None)[:-3],
        np.sort(np.abs(control.affine), axis=None)[:-3],
    )


def test_table_is_there(control: Stack) -> None:
    assert len(_cases()) > 60
    assert len(_fuzz()) > 150


def test_fuzzed_files_are_refused(control: Stack) -> None:
    """One by one they take 15 s; a sample here, all of them in the long test."""
    for path in _fuzz()[::8]:
        with pytest.raises(NotAnalysed):
            _read(path)


@pytest.mark.long
@pytest.mark.parametrize("path", _fuzz(), ids=lambda p: p.name)
def test_fuzzed_file(path: Path, control: Stack) -> None:
    with pytest.raises(NotAnalysed):
        _read(path)


@pytest.mark.parametrize("case", _cases("pydicom_names.tsv", "name"), ids=lambda c: c["case"])
def test_pydicom_file(case: dict[str, str]) -> None:
    from pydicom.data import get_testdata_file

    path = get_testdata_file(case["case"], download=False)
    if path is None:
        pytest.skip("not in this pydicom")
    with pytest.raises(NotAnalysed) as refused:
        _read(Path(path))
    assert "any" in case["reason"] or refused.value.code in case["reason"]
