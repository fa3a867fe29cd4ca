"""The studies of the service, on disk, so that a restart knows them all.

    home/studies/<id>/state.json     id, number, status, times: the authority on the status
    home/studies/<id>/upload.zip     until the analysis ended
    home/studies/<id>/report/        what the pipeline wrote: report.json, overlays/, ...

An id is generated here and never comes from a header or a file name. A study without a finished
analysis at start becomes not_analysed (WORKER_FAILED): nothing stays pending in silence.
"""

from __future__ import annotations

import fcntl
import json
import re
import secrets
import shutil
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from triage.results.files import sync_folder, write_atomic
from triage.results.report import REPORT_NAME, refused, write_report
from triage.types import Status

ID = re.compile(r"[0-9a-f]{32}")
FINISHED = (Status.ANALYSED, Status.NOT_ANALYSED, Status.NOT_APPLICABLE)


class StoreInUseError(RuntimeError):
    """Another service works on the same folder."""


@dataclass(slots=True)
class Entry:
    """One study of the list. `number` counts arrivals; `stage` and `fraction` live in memory."""

    id: str
    number: int
    status: Status
    received_at: str
    finished_at: str | None = None
    stage: str = ""
    fraction: float = 0.0
    report: dict[str, Any] | None = None

    def state(self) -> bytes:
        kept = ("id", "number", "status", "received_at", "finished_at")
        return json.dumps({name: getattr(self, name) for name in kept}).encode()


class Store:
    """All studies below `home`/studies; safe to use from several threads."""

    def __init__(self, home: Path) -> None:
        self.folder = home.expanduser().resolve() / "studies"
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._owner: IO[str] | None = None

    def open(self) -> None:
        """Take the folder for this process and read it. Raises StoreInUseError, OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._owner = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._owner.close()
            raise StoreInUseError(f"Another service uses {self.folder}: stop it first") from error
        for folder in self.folder.iterdir():
            if folder.is_dir() and ID.fullmatch(folder.name):
                self._recover(folder)

    def close(self) -> None:
        """Let another process have the folder."""
        if self._owner is not None:
            self._owner.close()

    def new_folder(self) -> Path:
        """An empty folder for an upload; no study until `admit`."""
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def admit(self, folder: Path) -> Entry:
        """Make the upload in `folder` a study, durably; after this it may be acknowledged."""
        with self._lock:
            number = 1 + max((e.number for e in self._entries.values()), default=0)
            entry = Entry(folder.name, number, Status.RECEIVED, now())
            sync_folder(folder)
            write_atomic(folder / "state.json", entry.state())
            sync_folder(self.folder)
            self._entries[entry.id] = entry
        return entry

    def discard(self, folder: Path) -> None:
        """Remove an upload that was not admitted."""
        shutil.rmtree(folder, ignore_errors=True)

    def upload(self, study: str) -> Path:
        return self.folder / self._entries[study].id / "upload.zip"

    def report_folder(self, study: str) -> Path:
        return self.folder / self._entries[study].id / "report"

    def get(self, study: str) -> Entry | None:
        """The study with this id; ids are compared, never made into paths."""
        return self._entries.get(study)

    def entries(self) -> list[Entry]:
        """All studies, newest first."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda e: e.number, reverse=True)

    def overlay(self, study: str, name: str) -> Path | None:
        """The overlay of that name among those that exist."""
        if study not in self._entries:
            return None
        overlays = self.report_folder(study) / "overlays"
        present = {path.name: path for path in overlays.glob("*.png") if path.is_file()}
        return present.get(name)

    def start(self, study: str) -> None:
        """The analysis begins. A folder of an earlier try goes: its parts must not be mixed."""
        shutil.rmtree(self.report_folder(study), ignore_errors=True)
        entry = self._entries[study]
        entry.status, entry.stage, entry.fraction = Status.ANALYSING, "starting", 0.0
        write_atomic(self.folder / entry.id / "state.json", entry.state())

    def step(self, study: str, stage: str, fraction: float) -> None:
        entry = self._entries[study]
        entry.stage, entry.fraction = stage, fraction

    def finish(self, study: str, failure: str | None = None, detail: str = "") -> None:
        """The analysis ended: take its report, or refuse with the reason code `failure`."""
        report = None if failure else _read_report(self.report_folder(study))
        if report is None:
            write_report(refused(failure or "WORKER_FAILED", detail), self.report_folder(study))
            report = _read_report(self.report_folder(study))
        entry = self._entries[study]
        assert report is not None  # noqa: S101 - written above, or read before
        entry.report, entry.status = report, Status(report["status"])
        entry.finished_at = now()
        write_atomic(self.folder / entry.id / "state.json", entry.state())
        self.upload(study).unlink(missing_ok=True)

    def _recover(self, folder: Path) -> None:
        try:
            state = json.loads((folder / "state.json").read_bytes())
            entry = Entry(**state)
            entry.status = Status(entry.status)
        except FileNotFoundError:  # the upload broke off: it was never acknowledged
            self.discard(folder)
            return
        except (ValueError, TypeError):
            entry = Entry(folder.name, 0, Status.RECEIVED, now())
        entry.id = folder.name
        self._entries[entry.id] = entry
        if entry.status in FINISHED:
            entry.report = _read_report(self.report_folder(entry.id))
        if entry.report is None:
            self.finish(entry.id, "WORKER_FAILED", "the service stopped before the analysis ended")


def _read_report(folder: Path) -> dict[str, Any] | None:
    """The finished report in `folder`, or None."""
    try:
        report = json.loads((folder / REPORT_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    finished = isinstance(report, dict) and report.get("status") in FINISHED
    return report if finished else None


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
