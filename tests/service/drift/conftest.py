"""A database of its own, and studies made of figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from triage.service.records import Database


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'triage.db'}")
    database.upgrade()
    yield database
    database.close()
