"""`triage serve` as a process of its own, and what tests of the pages do with it."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from triage.service.access import users
from triage.service.access.principal import Role
from triage.service.records import Database, analyses
from triage.service.records.models import Series, Study, new_id, now
from triage.types import Status

CHROMIUM = os.environ.get("TRIAGE_CHROMIUM", "/usr/bin/chromium")
TESTS = Path(__file__).resolve().parents[1]
START_S = 90.0
PASSWORD = "correct horse battery staple"  # noqa: S105 - of a user who lives for one test


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """One service on ports of its own; `kill` and `start` again as often as wanted."""

    def __init__(self, home: Path, quick: bool = True, **settings: str) -> None:
        self.home = home
        self.port, self.dicom_port = free_port(), free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        program = [str(TESTS / "serve_quick.py")] if quick else ["-m", "triage.cli.main", "serve"]
        self.command = [sys.executable, *program]
        self.environment = os.environ | {
            "TRIAGE_HOME": str(home),
            "TRIAGE_HTTP_PORT": str(self.port),
            "TRIAGE_DICOM_PORT": str(self.dicom_port),
            "TRIAGE_SERIES_QUIET_S": "0.5",
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parents[1])]),
            **settings,
        }

    def start(self) -> None:
        with self.home.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log
            )
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(httpx.HTTPError):
                httpx.get(f"{self.base}/healthz", timeout=5)
                return
            time.sleep(0.05)
        raise AssertionError(self.home.with_suffix(".log").read_text()[-3000:])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def records(self) -> Database:
        return Database.at_home(self.home)

    def send(self, files: Sequence[bytes | Path]) -> None:
        """C-STORE, one association."""
        entity = AE(ae_title="CT_ER1")
        entity.add_requested_context(CTImageStorage)
        association = entity.associate("127.0.0.1", self.dicom_port, ae_title="TRIAGE")
        assert association.is_established
        for file in files:
            data = dcmread(io.BytesIO(file) if isinstance(file, bytes) else file)
            assert association.send_c_store(data).Status == 0
        association.release()

    def add_user(self, name: str, *roles: str) -> None:
        with self.records().session() as session:
            users.add(session, name, PASSWORD, [Role(r) for r in roles], "test")


@contextmanager
def started(home: Path, quick: bool = True, **settings: str) -> Iterator[Running]:
    running = Running(home, quick, **settings)
    running.start()
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def put(database: Database, report: dict[str, Any] | None = None, **fields: Any) -> str:
    """A study straight into the records, analysed where there is a report; returns its id."""
    with database.session() as session:
        return put_in(session, report, **fields)


def put_in(session: Any, report: dict[str, Any] | None = None, **fields: Any) -> str:
    key = new_id()
    uid = (report or {}).get("study_instance_uid") or f"1.2.826.0.1.3680043.8.498.{int(key, 16)}"
    known = {
        "id": key,
        "study_instance_uid": uid,
        "patient_name": "TEST^PATIENT",
        "patient_id": key[:6],
        "instance_count": 3,
        "ready_version": 1,
        "received_at": now() - timedelta(seconds=60),
    }
    session.add(Study(**(known | fields)))
    session.flush()
    for used in (report or {}).get("series") or ():
        uid = used["series_instance_uid"]
        session.add(Series(study_id=key, series_instance_uid=uid, modality="CT"))
    if report is not None and report["status"] == Status.ANALYSED:
        analysis = analyses.begin(session, key, 1, "test", again=True)
        assert analysis is not None
        analyses.finish(session, analysis.id, report)
    elif report is not None:
        analyses.refuse(session, key, 1, report)
    return key
