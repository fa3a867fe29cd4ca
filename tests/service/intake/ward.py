"""A running intake as the tests see it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from triage.service.images.files import Files
from triage.service.intake.service import Intake
from triage.service.records import Database, studies
from triage.service.records.models import Instance, Study


@dataclass
class Ward:
    """A running intake with what it said."""

    intake: Intake
    database: Database
    files: Files
    ready: list[tuple[str, int]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.intake.receiver.port

    def studies(self) -> list[Study]:
        with self.database.reading() as session:
            return studies.newest(session)

    def instances(self) -> list[Instance]:
        with self.database.reading() as session:
            return [i for s in studies.newest(session) for i in studies.instances(session, s.id)]

    def on_disk(self) -> list[Path]:
        return sorted(p for p in self.files.root.rglob("*") if p.is_file() and p.name != ".lock")


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
