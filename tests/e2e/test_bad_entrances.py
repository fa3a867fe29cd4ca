"""Malformed input through every entrance, alone, beside and inside a good study: the service stays
up, its memory bounded, the good study is right, and the bad one has its reason and no verdict.

`scripts/bad-inputs` sends all of the set; here a few cases of it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tests.drills  # noqa: F401 - so that modules of tests/service are found
from tests.e2e import bad_commands
from tests.e2e.bad_cases import ROOT, Case, Row, cases, few, row_of
from tests.e2e.bad_entrances import ENTRANCES
from tests.e2e.bad_rounds import MEMORY_MB, alone, beside, good_study, service_at
from tests.fuzz.seeds import Seed
from triage.nets.bundle import MANIFEST, BundleError, find_bundle, verify


@pytest.fixture(scope="module")
def good() -> Seed:
    if not ROOT.is_dir():
        pytest.skip(f"test data not found at {ROOT}: set TRIAGE_TEST_DATA")
    return good_study()


def wrong(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.wrong]


def test_some_through_each_entrance(good: Seed, tmp_path: Path) -> None:
    chosen = few(cases("not_analysed"))
    with service_at(tmp_path / "home") as (at, memory):
        for number, name in enumerate(ENTRANCES):
            some = chosen[number :: len(ENTRANCES)]
            rows = alone(at, name, some)
            assert len(rows) == len(some) >= 2
            assert wrong(rows) == []
            if number % 2 == 0:  # each good study has 48 images
                assert wrong(beside(at, name, some, good)) == []
    assert memory.service < MEMORY_MB


@pytest.mark.parametrize("way", ["beside", "inside"])
def test_some_in_a_good_folder(good: Seed, tmp_path: Path, way: str) -> None:
    rows, _ = bad_commands.in_a_good_folder(tmp_path, few(cases("not_analysed"))[:4], way)
    assert rows
    assert wrong(rows) == []


def test_what_is_wrong_is_seen() -> None:
    bad = Case("x", "not_analysed", "GAP or TILT, if not analysed")
    assert row_of("e", "alone", bad, "analysed", ()).wrong
    assert row_of("e", "alone", bad, "not_analysed", ("NOT_CT",)).wrong
    assert not row_of("e", "alone", bad, "not_analysed", ("TILT",)).wrong
    assert row_of("e", "alone", Case("x", "analysed", ""), "not_analysed", ("GAP",)).wrong


def test_none_passes_for_a_bundle(good: Seed, tmp_path: Path) -> None:
    """As manifest, as cutoffs or as weights with a manifest that lists them."""
    whole = find_bundle("reference")
    listed = json.loads((whole / MANIFEST).read_bytes())["files"]
    for number, case in enumerate(cases("not_analysed")[::4]):
        data = case.files()[0]
        bad = tmp_path / str(number)
        bad.mkdir()
        (bad / MANIFEST).write_bytes(data if number % 2 else (whole / MANIFEST).read_bytes())
        for name in listed:
            (bad / name).parent.mkdir(parents=True, exist_ok=True)
            (bad / name).write_bytes(data)
        with pytest.raises(BundleError):
            verify(find_bundle(bad))
