"""Counting injuries in rows with the columns of RSNA's train.csv."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from triage.cli.simulate import injuries, is_injured


def test_counts_agree_with_the_real_table(shared: Path) -> None:
    table = shared / "rsna2023" / "train.csv"
    if not table.is_file():
        pytest.skip(f"there is no {table}")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    count = injuries(rows)
    assert count == {
        "bowel": 64,
        "extravasation": 200,
        "kidney": 182,
        "liver": 321,
        "spleen": 354,
        "none": len(rows) - 855,
    }


def test_a_row_without_the_columns_is_an_error() -> None:
    with pytest.raises(KeyError, match="liver_low"):
        is_injured({"liver": 1}, "liver")
