"""The one way in: header, durable file, row, and only then the answer.

Callers prepare their file in their own thread (hash, write, fsync), then one thread commits what
has gathered: a transaction and a folder's fsync serve many senders at once, and nobody is answered
before his own image is on the disk and in the database.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from triage.reasons import NotAnalysed
from triage.service.images.files import Files, Incoming, StorageError, copy_into
from triage.service.intake.commit import commit
from triage.service.intake.header import read_header
from triage.service.intake.items import (
    Accepted,
    Claim,
    NotStoredError,
    Prepared,
    Source,
    State,
    Touched,
)
from triage.service.records.database import Database, DatabaseBusyError, DatabaseFullError

__all__ = ["Accepted", "Acceptor", "Claim", "NotStoredError", "Source", "State", "Touched"]

log = logging.getLogger(__name__)

NO_CLAIM = Claim()
BATCH = 256  # images of one transaction


class Acceptor:
    """Takes files from any number of threads. `on_stored` is told after each commit."""

    def __init__(
        self,
        database: Database,
        files: Files,
        on_stored: Callable[[Sequence[Touched]], None] = lambda touched: None,
        deadline_s: float = 3600.0,
    ) -> None:
        self.database = database
        self.files = files
        self.on_stored = on_stored
        self.deadline_s = deadline_s
        self._waiting: queue.Queue[Prepared | None] = queue.Queue()
        self._thread = threading.Thread(target=self._loop, name="triage-accept", daemon=True)
        self._stopped = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Commit what is waiting, refuse what comes later."""
        self._stopped = True
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        while not self._waiting.empty():  # what came in the last moment
            item = self._waiting.get()
            if item is not None:
                _fail([item], NotStoredError("the service is stopping"))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def accept(
        self,
        data: bytes | Path | Incoming,
        source: Source,
        claimed: Claim = NO_CLAIM,
    ) -> Accepted:
        """Take one file and return when it lasts. Raises NotStoredError, FileTooLargeError.

        `data`: a DICOM file as bytes, its path (it is copied), or one already received into
        `files.begin()`. `claimed`: what the sender announced.
        """
        return self.submit(data, source, claimed).result()

    def submit(
        self,
        data: bytes | Path | Incoming,
        source: Source,
        claimed: Claim = NO_CLAIM,
    ) -> Future[Accepted]:
        """As `accept`, but the commit is waited for in the Future: for many files at once."""
        if self._stopped:
            raise NotStoredError("the service is stopping")
        try:
            file = data if isinstance(data, Incoming) else self._received(data)
            prepared = _prepared(file, source)
        except StorageError as error:
            raise NotStoredError(str(error), error.full) from error
        header = prepared.header
        if header is not None and not claimed.fits(header):
            prepared.reason, prepared.detail = "MISMATCH", "not the object that was announced"
        if header is not None and (header.is_directory or header.is_ours):
            file.discard()
            prepared.done.set_result(Accepted(State.IGNORED))
        else:
            self._waiting.put(prepared)
        return prepared.done

    def refuse(self, file: Incoming, source: Source, reason: str, detail: str) -> Accepted:
        """Put a file into quarantine whatever its header says. Raises NotStoredError."""
        try:
            prepared = _prepared(file, source)
        except StorageError as error:
            raise NotStoredError(str(error), error.full) from error
        prepared.reason, prepared.detail = reason, detail
        self._waiting.put(prepared)
        return prepared.done.result()

    def _received(self, data: bytes | Path) -> Incoming:
        file = self.files.begin()
        if isinstance(data, bytes):
            file.write(data)
            return file
        try:
            with data.open("rb") as stream:
                copy_into(stream, file)
        except OSError:  # of the source: ours are StorageError
            file.discard()
            raise
        return file

    # ---- the committing thread

    def _loop(self) -> None:
        while (batch := self._batch()) is not None:
            try:
                self._commit(batch)
            except BaseException as error:  # the thread must not die with senders waiting
                log.exception("images could not be committed")
                _fail(batch, error)

    def _batch(self) -> list[Prepared] | None:
        """What waits, oldest first; None at the end."""
        first = self._waiting.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < BATCH:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if item is None:
                self._waiting.put(None)
                break
            batch.append(item)
        return batch

    def _commit(self, batch: list[Prepared]) -> None:
        try:
            answers, touched = commit(self.database, self.files, batch, self.deadline_s)
        except (DatabaseBusyError, DatabaseFullError, StorageError) as error:
            full = isinstance(error, DatabaseFullError) or getattr(error, "full", False)
            _fail(batch, NotStoredError(str(error), full))
            return
        except Exception as error:
            if len(batch) == 1:
                log.exception("an image could not be committed")
                _fail(batch, NotStoredError(f"{type(error).__name__}"))
            else:  # one of them may be at fault, the others must not suffer
                for item in batch:
                    self._commit([item])
            return
        try:
            self.on_stored(touched)
        except Exception:
            log.exception("after a commit")
        for item, answer in zip(batch, answers, strict=True):
            if answer.state is State.DUPLICATE or item.unwanted:
                item.file.discard()
            item.done.set_result(answer)


def _fail(batch: Sequence[Prepared], error: BaseException) -> None:
    for item in batch:
        item.file.discard()
        with suppress(Exception):
            item.done.set_exception(error)


def _prepared(file: Incoming, source: Source) -> Prepared:
    """Header and hash of a written file, which is synced and has a blank preamble afterwards."""
    file.finish()
    if not file.size:
        file.close()
        digest = hashlib.sha256().hexdigest()
        return Prepared(file, source, digest, None, "UNREADABLE", "the file is empty")
    try:
        with file.mapped() as data:
            return _looked_at(file, source, data)
    except OSError as error:
        file.discard()
        raise StorageError(f"cannot read back: {error.strerror}") from error
    finally:
        file.close()


def _looked_at(file: Incoming, source: Source, data: mmap.mmap) -> Prepared:
    try:
        header = read_header(data)
    except NotAnalysed as refusal:
        return Prepared(file, source, _sha256(data, 0), None, "UNREADABLE", refusal.detail)
    return Prepared(file, source, _sha256(data, header.start), header)


def _sha256(data: mmap.mmap, start: int) -> str:
    """Of the data set alone: the file meta information differs between entrances."""
    with memoryview(data) as whole, whole[start:] as view:
        return hashlib.sha256(view).hexdigest()
