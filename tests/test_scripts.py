"""Scripts find the project's own Python, or say where they looked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
COMPUTING = sorted(
    path.name
    for path in SCRIPTS.iterdir()
    if path.is_file()
    and path.read_text().startswith("#!/usr/bin/env python3")
    and "triage." in path.read_text()
)


@pytest.mark.parametrize("name", COMPUTING)
def test_scripts_go_on_in_the_virtual_environment(name: str) -> None:
    code = [line for line in (SCRIPTS / name).read_text().splitlines() if "import " in line]
    assert code[0].startswith("from __future__")
    assert code[1].startswith("import environment")


def test_without_an_environment_it_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys._base_executable, "-I", "-S", SCRIPTS / "environment.py"],
        env={"TRIAGE_VENV": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert str(tmp_path / "none") in done.stderr and "scripts/demo" in done.stderr
