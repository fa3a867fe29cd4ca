"""A watched folder: what is put in is taken, and moved to `done` or `refused` inside it.

A file is taken once its size and time have not changed for `SETTLE_S`: whoever writes slowly is
waited for. Links are never followed. Where the disk is full or the database locked, files stay
where they are and are tried again.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from watchfiles import watch

from triage.reasons import NotAnalysed
from triage.service.images.files import FileTooLargeError
from triage.service.intake.accept import NotStoredError, Source, State
from triage.service.intake.archive import take_zip
from triage.service.records.models import new_id

if TYPE_CHECKING:
    from triage.service.intake.service import Intake

log = logging.getLogger(__name__)

DONE, REFUSED = "done", "refused"
SETTLE_S = 1.0
_RESCAN_MS = 1000  # also finds what the system did not report (network file systems)
_BUSY_S = 10.0
_PARTIAL = (".part", ".tmp", ".partial", ".crdownload", ".filepart")


class Watcher:
    """Takes what is put into `folder`."""

    def __init__(self, intake: Intake, folder: Path) -> None:
        self.intake = intake
        self.folder = folder.expanduser().resolve()
        self._seen: dict[Path, tuple[int, int, float]] = {}  # size, mtime_ns, since
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="triage-watch", daemon=True)

    def start(self) -> None:
        """Raises OSError if the folder cannot be made or written."""
        for name in (DONE, REFUSED):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _loop(self) -> None:
        changes = watch(
            self.folder,
            stop_event=self._stop,
            rust_timeout=_RESCAN_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        for _ in changes:
            try:
                self.scan()
            except NotStoredError as error:
                log.warning("watched folder: %s; trying again", type(error).__name__)
                self._stop.wait(_BUSY_S)
            except Exception:
                log.exception("watched folder")
                self._stop.wait(_BUSY_S)

    def scan(self) -> int:
        """Take every file that has settled; how many. Raises NotStoredError."""
        taken = 0
        present = dict(self._files())
        self._seen = {path: seen for path, seen in self._seen.items() if path in present}
        for path, status in present.items():
            if self._settled(path, status):
                self._take(path)
                del self._seen[path]
                taken += 1
        return taken

    def _settled(self, path: Path, status: os.stat_result) -> bool:
        now = time.monotonic()
        size, modified, since = self._seen.get(path, (-1, -1, now))
        if (size, modified) != (status.st_size, status.st_mtime_ns):
            since = now
        self._seen[path] = (status.st_size, status.st_mtime_ns, since)
        return now - since >= SETTLE_S

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        ours = {str(self.folder / DONE), str(self.folder / REFUSED)}
        for where, folders, names in os.walk(self.folder):
            folders[:] = sorted(f for f in folders if str(Path(where) / f) not in ours)
            for name in sorted(names):
                path = Path(where) / name
                if name.startswith(".") or name.lower().endswith(_PARTIAL):
                    continue
                try:
                    status = path.lstat()
                except OSError:
                    continue  # gone meanwhile
                if stat.S_ISREG(status.st_mode):
                    yield path, status

    def _take(self, path: Path) -> None:
        try:
            good = self._took(path)
        except (FileTooLargeError, NotAnalysed) as error:
            log.warning("watched folder: a file was refused: %s", type(error).__name__)
            good = False
        except OSError as error:
            log.warning("watched folder: a file cannot be read: %s", error.strerror)
            return
        self._move(path, DONE if good else REFUSED)

    def _took(self, path: Path) -> bool:
        source = Source("watch")
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        if zipped:
            upload = take_zip(self.intake, path, source)
            return not upload.lacking and any(upload.counts.values())
        accepted = self.intake.acceptor.accept(path, source)
        return accepted.state is not State.QUARANTINED

    def _move(self, path: Path, where: str) -> None:
        """Keep its place below the watched folder; a taken name gets a number."""
        target = self.folder / where / path.relative_to(self.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target = target.with_name(f"{target.stem}.{new_id()[:8]}{target.suffix}")
        path.rename(target)
