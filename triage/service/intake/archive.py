"""An uploaded zip: unpacked in the child process with its limits, then taken file by file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from triage.dicom import child, dataset
from triage.dicom.headers import DICOM_SUFFIXES, made_up_uid
from triage.dicom.intake import UNZIP
from triage.reasons import NotAnalysed
from triage.results.report import refused, to_dict
from triage.service.images.files import FileTooLargeError
from triage.service.intake.accept import Accepted, NotStoredError, Source, State
from triage.service.records import analyses
from triage.service.records.models import new_id

if TYPE_CHECKING:
    from triage.service.images.files import Files
    from triage.service.intake.accept import Acceptor
    from triage.service.intake.complete import Completeness
    from triage.service.records import Database
    from triage.settings import Settings

_AT_ONCE = 64  # files that wait for their commit
_THREADS = 4  # of them are written at the same time


class Entrance(Protocol):
    """What taking many files needs of `service.Intake`."""

    settings: Settings
    database: Database
    files: Files
    acceptor: Acceptor
    completeness: Completeness


@dataclass(slots=True)
class Upload:
    """What became of several files that came together."""

    studies: list[str] = field(default_factory=list)  # ids, each once
    counts: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    refused: list[Accepted] = field(default_factory=list)  # those in quarantine

    def add(self, accepted: Accepted) -> None:
        self.counts[accepted.state] += 1
        if accepted.state is State.QUARANTINED:
            self.refused.append(accepted)
        if accepted.study_id is not None and accepted.study_id not in self.studies:
            self.studies.append(accepted.study_id)

    @property
    def lacking(self) -> bool:
        """A file could not be understood: images may be missing from the studies beside it."""
        return any(one.reason != "OTHER_BYTES" for one in self.refused)


def take_zip(intake: Entrance, path: Path, source: Source) -> Upload:
    """Take every DICOM file in the zip at `path`; its studies are complete then.

    Other files in it are passed over. A zip that holds no image, or cannot be opened, becomes a
    study of its own, `not_analysed` with the reason, so that it shows. Raises NotStoredError (disk
    full, database locked): then some images may be stored, and the zip should be sent again.
    """
    try:
        return unpack_zip(intake, path, source)
    except NotAnalysed as refusal:
        return _refused(intake, refusal)


def unpack_zip(intake: Entrance, path: Path, source: Source) -> Upload:
    """As `take_zip`, but raises NotAnalysed for a zip that holds no image or cannot be opened."""
    with intake.files.workspace() as folder:
        _unpack(intake, path, folder)
        return take_files(intake, dicom_files(folder), source)


def take_folder(intake: Entrance, folder: Path, source: Source) -> Upload:
    """Take copies of every DICOM file below `folder`; its studies are complete then.

    Raises NotStoredError as `take_zip`.
    """
    return take_files(intake, dicom_files(folder), source, copy=True)


def take_files(
    intake: Entrance, paths: Iterable[Path], source: Source, copy: bool = False
) -> Upload:
    """Take these files (moving them unless `copy`), several at a time, as one whole upload."""
    found = Upload()
    acceptor = intake.acceptor
    source = replace(source, transfer=True)

    def submit(path: Path) -> Future[Accepted]:
        try:
            return acceptor.submit(path if copy else intake.files.adopt(path), source)
        except FileTooLargeError as error:
            done: Future[Accepted] = Future()
            done.set_result(Accepted(State.QUARANTINED, reason="TOO_LARGE", detail=str(error)))
            return done

    failed = True
    try:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="triage-upload") as pool:
            for some in _chunks(paths, _AT_ONCE):
                for waiting in pool.map(submit, some):
                    found.add(waiting.result())
        failed = found.lacking
    finally:
        intake.completeness.transfer_ended(found.studies, failed)
    if not found.studies:
        raise NotAnalysed("UNREADABLE", found.refused[0].detail if found.refused else "no DICOM")
    intake.completeness.complete(found.studies)
    return found


def dicom_files(folder: Path) -> Iterator[Path]:
    """Regular files below `folder` that are DICOM, or claim it by their name; links are left."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            head = file.read(132)
        if dataset.is_dicom(head) or path.suffix.lower() in DICOM_SUFFIXES:
            yield path


def _unpack(intake: Entrance, path: Path, folder: Path) -> None:
    settings = intake.settings
    request = {"path": str(path), "folder": str(folder), "max_bytes": settings.max_bytes}
    try:
        child.run(
            UNZIP,
            request,
            timeout_s=settings.decode_timeout_s,
            memory_bytes=settings.decode_memory_bytes,
            may_write=True,
        )
    except NotAnalysed as error:
        if "Errno 28" in error.detail or "Errno 122" in error.detail:  # ENOSPC, EDQUOT
            raise NotStoredError("no space left to unpack", full=True) from None
        raise


def _refused(intake: Entrance, refusal: NotAnalysed) -> Upload:
    uid = made_up_uid(f"upload {new_id()}")
    report = to_dict(refused(refusal.code, refusal.detail, uid))
    with intake.database.session() as session:
        study = analyses.refuse_upload(session, uid, report)
    return Upload(studies=[study.id])


def _chunks(paths: Iterable[Path], size: int) -> Iterator[Sequence[Path]]:
    rest = iter(paths)
    while some := list(islice(rest, size)):
        yield some
