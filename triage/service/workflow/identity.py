"""Stable names of workers: a worker that starts again goes on with what it had begun."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from pathlib import Path
from types import TracebackType

from triage.settings import Settings

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


class WorkerInUseError(RuntimeError):
    """Another process on this machine runs under this worker id."""


class Identity:
    """The name under which this process works, held by a lock until `release` or its end.

    TRIAGE_WORKER_ID, else a name made once: `home/workers/<machine>.<n>.id`, with the first n that
    no living process holds. A home may be shared by machines.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises WorkerInUseError where the id of the settings is taken on this machine."""
        self._folder = settings.home.expanduser() / "workers"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        machine = _UNFIT.sub("-", socket.gethostname()) or "machine"
        if settings.worker_id:
            chosen = _UNFIT.sub("-", settings.worker_id)
            handle = _locked(self._folder / f"{machine}.{chosen}.lock")
            if handle is None:
                raise WorkerInUseError(f"Another worker runs here as {chosen} (TRIAGE_WORKER_ID).")
            self._handle, self.name = handle, settings.worker_id
            return
        self._handle, self.name = self._own(machine)

    def _own(self, machine: str) -> tuple[int, str]:
        for number in range(1, 1000):
            path = self._folder / f"{machine}.{number}.id"
            handle = _locked(path)
            if handle is None:
                continue
            name = os.pread(handle, 256, 0).decode("ascii", "replace").strip()
            if not name:
                name = f"{machine}-{number}-{secrets.token_hex(4)}"
                os.pwrite(handle, name.encode("ascii"), 0)
                os.fsync(handle)
            return handle, name
        raise WorkerInUseError("No worker id is free in the home.")

    def release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Identity:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.release()


def _locked(path: Path) -> int | None:
    """A handle that holds the file's lock; None if another process does."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
