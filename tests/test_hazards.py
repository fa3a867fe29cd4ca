"""Every hazard of docs/HAZARDS.md has a control that a test of scripts/test holds."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| ([A-Z]\d+) \|.*$", re.M)
TABLE = (ROOT / "docs" / "HAZARDS.md").read_text()
ROWS = {match[1]: match[0] for match in ROW.finditer(TABLE)}
# What the table has to speak of, whatever its rows are called.
SUBJECTS = ("Silent negative", "Wrong patient", "Late or stale", "Wrong confidence", "Break-in")


@lru_cache
def held_by(module: str) -> dict[str, bool]:
    """Names of a module's tests, and whether `scripts/test` leaves them out (marked long)."""
    tree = ast.parse((ROOT / module).read_text())
    whole = any(
        isinstance(node, ast.Assign)
        and "pytestmark" in ast.unparse(node.targets[0])
        and "mark.long" in ast.unparse(node.value)
        for node in tree.body
    )
    return {
        node.name: whole or any(ast.unparse(d) == "pytest.mark.long" for d in node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_the_table_speaks_of_every_subject() -> None:
    headings = re.findall(r"^## (.+)$", TABLE, re.M)
    assert all(any(h.startswith(subject) for h in headings) for subject in SUBJECTS)
    assert len(ROWS) >= 25


@pytest.mark.parametrize("number", ROWS)
def test_every_hazard_has_a_test_that_runs(number: str) -> None:
    cells = [cell.strip() for cell in ROWS[number].strip("|").split("|")]
    assert len(cells) == 6 and all(cells), "a cell is missing"
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cells[5])
    assert named, "no test is named"
    for module, name in named:
        assert name in held_by(module), f"{module} has no {name}"
    assert any(not held_by(module)[name] for module, name in named), "only long tests"
