"""A home with the workflow running in this process, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clinic import QUICK, STAND_IN, Clinic

from triage.service.workflow.workflow import Workflow


@pytest.fixture(scope="module")
def clinic(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Clinic]:
    """On SQLite, unless a test file asks for both."""
    wanted = getattr(request, "param", "sqlite")
    url = request.getfixturevalue("new_database")() if wanted == "postgresql" else None
    home: Path = tmp_path_factory.mktemp("home")
    clinic = Clinic(home, url)
    yield clinic
    clinic.database.close()


@pytest.fixture(scope="module")
def workflow(clinic: Clinic) -> Iterator[Workflow]:
    workflow = Workflow(clinic.settings, clinic.database, load=STAND_IN, timing=QUICK)
    workflow.start()
    yield workflow
    workflow.stop()
