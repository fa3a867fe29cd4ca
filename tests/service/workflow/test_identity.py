"""Names of workers: the same after a restart, never the same twice at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from triage.service.workflow.identity import Identity, WorkerInUseError
from triage.settings import Settings


def test_a_restart_has_the_same_name_and_a_second_worker_another(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with Identity(settings) as one, Identity(settings) as two:
        first, second = one.name, two.name
    assert first != second
    with Identity(settings) as again, Identity(settings) as other:
        assert (again.name, other.name) == (first, second)


def test_a_given_name_is_used_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, worker_id="ward 3/ä")
    with Identity(settings) as one:
        assert one.name == "ward 3/ä"
        with pytest.raises(WorkerInUseError, match="TRIAGE_WORKER_ID"):
            Identity(settings)
    Identity(settings).release()
    assert all(path.parent == tmp_path / "workers" for path in (tmp_path / "workers").rglob("*"))
