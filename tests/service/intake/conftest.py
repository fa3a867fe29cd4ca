"""An intake on a home of its own, and DCMTK as its peer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ward import Ward

from triage.service.images.files import Files
from triage.service.intake.service import Intake
from triage.service.records import Database
from triage.settings import Settings

DCMTK = Path("/usr/bin")


@pytest.fixture
def open_ward(home: Path) -> Iterator[Callable[..., Ward]]:
    """Starts an intake with these settings; stops it in the end."""
    wards: list[Ward] = []

    def start(**changes: object) -> Ward:
        settings = Settings(home=home, dicom_port=0, **changes)  # type: ignore[arg-type]
        database = Database.at_home(home)
        database.upgrade()
        files = Files(home, settings.max_instance_bytes)
        files.open()
        ready: list[tuple[str, int]] = []
        intake = Intake(settings, database, files, lambda *what: ready.append(what))
        wards.append(Ward(intake, database, files, ready))
        intake.start()
        return wards[-1]

    yield start
    for ward in wards:
        ward.intake.stop()
        ward.files.close()
        ward.database.close()


@pytest.fixture
def ward(open_ward: Callable[..., Ward]) -> Ward:
    return open_ward()


@pytest.fixture
def storescu() -> Callable[..., subprocess.CompletedProcess[str]]:
    """DCMTK's storescu; skips where it is not installed."""
    program = DCMTK / "storescu"
    if not program.is_file():
        pytest.skip("no DCMTK: install dcmtk")

    def send(port: int, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(program), "-v", "-aec", "TRIAGE", *map(str, arguments)]
        at = command.index("--") if "--" in command else len(command)
        files = command[at + 1 :]
        return subprocess.run(
            [*command[:at], "127.0.0.1", str(port), *files],
            env={**os.environ, "TCP_NODELAY": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )

    return send
