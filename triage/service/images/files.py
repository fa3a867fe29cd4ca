"""Image files on disk.

    home/images/incoming/<id>.part         being written; removed at start
    home/images/unpacking/<id>/            an upload being unpacked; removed at start
    home/images/studies/<study>/<id>.dcm   one folder a study, what the pipeline reads
    home/images/quarantine/<id>            taken, but of no study
    home/analyses/<study>/<analysis>/      report.json and pictures of one analysis

Every name is an id made here, never anything out of a header or a file name. The order of a write
is: temporary name, write, fsync, rename, fsync of the folder, commit of the row. So a row without a
file cannot be, and a file without a row was never acknowledged: it goes at the next start.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sqlalchemy import select

from triage.files import sync_folder
from triage.service.records.database import Database
from triage.service.records.models import Instance, Quarantined, Study, new_id

ID = re.compile(r"[0-9a-f]{32}")
PREAMBLE = 128  # bytes before "DICM" (PS3.10 section 7.1): anything may hide there
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK = 1 << 20


class HomeInUseError(RuntimeError):
    """Another service works on the same home."""


class StorageError(RuntimeError):
    """The file could not be written, and nothing of it remains. `full`: there is no space."""

    def __init__(self, text: str, full: bool = False) -> None:
        super().__init__(text)
        self.full = full


class FileTooLargeError(RuntimeError):
    """More bytes than one image may have; nothing of it remains."""


def storage_error(error: OSError) -> StorageError:
    return StorageError(f"cannot write: {error.strerror}", full=error.errno in _FULL)


class Incoming:
    """One file on its way in: write, `finish`, `close`; `discard` in every other case."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.id = new_id()
        self.path = folder / f"{self.id}.part"
        self.size = 0
        self._limit = limit
        try:
            self._file: IO[bytes] = self.path.open("x+b", buffering=0)
        except OSError as error:
            raise storage_error(error) from error

    def reopen(self, path: Path) -> None:
        """Be the file at `path` instead, which moves here. Raises OSError."""
        path.replace(self.path)
        self._file.close()
        self._file = self.path.open("r+b", buffering=0)
        self.size = self.path.stat().st_size

    def write(self, data: bytes | memoryview) -> None:
        """Raises StorageError, FileTooLargeError; the file is gone then."""
        try:
            if self.size + len(data) > self._limit:
                raise FileTooLargeError(f"more than {self._limit} bytes")
            view = memoryview(data)
            while view:  # an unbuffered write may be short
                view = view[self._file.write(view) :]
            self.size += len(data)
        except OSError as error:
            self.discard()
            raise storage_error(error) from error
        except BaseException:
            self.discard()
            raise

    def finish(self) -> None:
        """All bytes are on the disk. Where the file has a preamble, it is zeroes from now on."""
        try:
            handle = self._file.fileno()
            head = os.pread(handle, PREAMBLE + 4, 0)
            if head[PREAMBLE:] == b"DICM" and any(head[:PREAMBLE]):
                os.pwrite(handle, bytes(PREAMBLE), 0)
            os.fsync(handle)
        except OSError as error:
            self.discard()
            raise storage_error(error) from error

    @contextmanager
    def mapped(self) -> Iterator[mmap.mmap]:
        """The finished file in memory; it is our own and nobody shortens it: no SIGBUS."""
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data

    def close(self) -> None:
        """Nothing more is read or written; the file stays."""
        with suppress(OSError):
            self._file.close()

    def discard(self) -> None:
        self.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass(slots=True)
class Sweep:
    """What `Files.sweep` found: files without a row (removed), rows without their file."""

    removed: int = 0
    missing: list[str] = field(default_factory=list)  # "study id/instance id", "quarantine/id"


class Files:
    """The image files below one home; safe to use from many threads."""

    def __init__(self, home: Path, max_file_bytes: int = 1 << 30) -> None:
        self.home = home.expanduser().resolve()
        self.root = self.home / "images"
        self.incoming = self.root / "incoming"
        self.work = self.root / "unpacking"
        self.studies = self.root / "studies"
        self.quarantine = self.root / "quarantine"
        self.analyses = self.home / "analyses"
        self.max_file_bytes = max_file_bytes
        self._owner: IO[str] | None = None

    def open(self) -> None:
        """Make the folders and take the home for this process: only one service writes images.

        Raises HomeInUseError, OSError.
        """
        for folder in (self.incoming, self.work, self.studies, self.quarantine, self.analyses):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._owner = (self.root / ".lock").open("w")
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._owner.close()
            raise HomeInUseError(f"Another service uses {self.home}: stop it first") from error

    def close(self) -> None:
        """Let another process have the home."""
        if self._owner is not None:
            self._owner.close()

    def study_folder(self, study_id: str) -> Path:
        """The folder of one study's images: what the pipeline is given."""
        return self.studies / _checked(study_id)

    def analysis_folder(self, study_id: str, analysis_id: str) -> Path:
        """The folder for report.json and pictures of one analysis; made by whoever writes."""
        return self.analyses / _checked(study_id) / _checked(analysis_id)

    def path(self, row: Instance | Quarantined) -> Path:
        """Where the file of this row lies."""
        return self.root / row.path

    def holds_images(self) -> bool:
        """Whether an image of any study is there."""
        return any(self.studies.glob("*/*.dcm"))

    # ---- writing

    def begin(self, limit: int | None = None) -> Incoming:
        """A new file to write to. Raises StorageError."""
        return Incoming(self.incoming, limit or self.max_file_bytes)

    def adopt(self, path: Path) -> Incoming:
        """Take over a file of the same file system, such as an unpacked one. Raises StorageError,
        FileTooLargeError."""
        file = Incoming(self.incoming, self.max_file_bytes)
        try:
            file.reopen(path)
        except OSError as error:
            file.discard()
            raise storage_error(error) from error
        if file.size > self.max_file_bytes:
            file.discard()
            raise FileTooLargeError(f"more than {self.max_file_bytes} bytes")
        return file

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty folder on the file system of the images, gone afterwards."""
        folder = self.work / new_id()
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise storage_error(error) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def place(self, file: Incoming, study_id: str) -> str:
        """Rename a finished file into its study; returns its path for the row.

        The rename lasts once `sync` ran on the folder. Raises StorageError.
        """
        return self._rename(file, self.study_folder(study_id) / f"{file.id}.dcm")

    def set_aside(self, file: Incoming) -> str:
        """Rename a finished file into the quarantine; returns its path for the row."""
        return self._rename(file, self.quarantine / file.id)

    def _rename(self, file: Incoming, target: Path) -> str:
        try:
            if not target.parent.is_dir():
                target.parent.mkdir(mode=0o700, exist_ok=True)
                sync_folder(target.parent.parent)
            file.path.rename(target)
        except OSError as error:
            raise storage_error(error) from error
        file.path = target
        return str(target.relative_to(self.root))

    def take_back(self, file: Incoming) -> None:
        """Undo `place` or `set_aside`: the row could not be written."""
        temporary = self.incoming / f"{file.id}.part"
        with suppress(OSError):
            file.path.rename(temporary)
        file.path = temporary

    def sync(self, files: Iterable[Incoming]) -> None:
        """Make the renames of these files last, one fsync a folder. Raises StorageError."""
        try:
            for folder in {file.path.parent for file in files}:
                sync_folder(folder)
        except OSError as error:
            raise storage_error(error) from error

    # ---- removing

    def remove_study(self, study_id: str) -> None:
        """Delete images, reports and pictures of one study, after its rows."""
        for folder in (self.study_folder(study_id), self.analyses / _checked(study_id)):
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, path: str) -> None:
        """Delete one file by the path of its row, after the row."""
        (self.root / path).unlink(missing_ok=True)

    def sweep(self, database: Database) -> Sweep:
        """Compare disk and database at start, before anything is accepted."""
        found = Sweep()
        for path in self.incoming.iterdir():
            path.unlink(missing_ok=True)
            found.removed += 1
        for path in self.work.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        with database.reading() as session:
            studies = set(session.scalars(select(Study.id)))
            quarantined = set(session.scalars(select(Quarantined.path)))
        self._compare(self.quarantine, quarantined, found)
        for folder in self.studies.iterdir():
            if folder.name not in studies:
                found.removed += sum(1 for _ in folder.iterdir())
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.analyses.iterdir():
            if folder.name not in studies:
                shutil.rmtree(folder, ignore_errors=True)
        for study_id in studies:
            with database.reading() as session:
                paths = set(
                    session.scalars(select(Instance.path).where(Instance.study_id == study_id))
                )
            self._compare(self.studies / study_id, paths, found)
        return found

    def _compare(self, folder: Path, rows: set[str], found: Sweep) -> None:
        there = set()
        if folder.is_dir():
            there = {str(path.relative_to(self.root)) for path in folder.iterdir()}
        for path in there - rows:
            (self.root / path).unlink(missing_ok=True)
            found.removed += 1
        found.missing += sorted(rows - there)


def _checked(name: str) -> str:
    if not ID.fullmatch(name):
        raise ValueError(f"Expected an id of 32 hexadecimal digits, got {name!r}")
    return name


def copy_into(source: IO[bytes], file: Incoming) -> None:
    """All bytes of `source`, in blocks. Raises StorageError, FileTooLargeError."""
    while block := source.read(_CHUNK):
        file.write(block)
