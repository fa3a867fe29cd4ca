"""Shared fixtures: where the test data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadlines: how long an example takes depends on what else the machine does.
settings.register_profile("repository", deadline=None)
settings.load_profile("repository")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real test data (TRIAGE_TEST_DATA, default ../shared); skips where it is absent."""
    folder = Path(os.environ.get("TRIAGE_TEST_DATA", ROOT.parent / "shared"))
    if not (folder / "ct").is_dir():
        pytest.skip(f"test data not found at {folder}: set TRIAGE_TEST_DATA")
    return folder
