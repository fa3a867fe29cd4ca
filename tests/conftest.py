"""Shared fixtures: where the test data lie. What is said when a test process dies."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# No deadlines: how long an example takes depends on what else the machine does. The same examples
# everywhere: a change is judged and not the dice. HYPOTHESIS_PROFILE=search throws new ones.
settings.register_profile("repository", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repository"))

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A test process that died says nothing itself: which signal, was it memory, or the load?"""
    if error:
        process = getattr(getattr(node.gateway, "_io", None), "popen", None)
        ended = None
        with suppress(subprocess.TimeoutExpired):
            ended = process.wait(5) if process else None
        name = f"{node.gateway.id} (exit status {ended})"
        memory = Path("/proc/meminfo").read_text().split("\n")[:3]
        load = Path("/proc/loadavg").read_text().strip()
        print(f"\n{name} ended: {error}; {'; '.join(memory)}; load {load}", flush=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real test data (TRIAGE_TEST_DATA, default ../shared); skips where it is absent."""
    folder = Path(os.environ.get("TRIAGE_TEST_DATA", ROOT.parent / "shared"))
    if not (folder / "ct").is_dir():
        pytest.skip(f"test data not found at {folder}: set TRIAGE_TEST_DATA")
    return folder
