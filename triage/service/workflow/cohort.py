"""Retrospective studies by the thousand: which folders hold one study each, and the way in.

`triage submit` only writes the folders down. The process that owns the home takes them, a study at
a time and never far ahead of the analysis, so that the disk holds few copies that still wait.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from triage.dicom import dataset
from triage.reasons import NotAnalysed
from triage.service.intake.accept import NotStoredError, Source
from triage.service.intake.archive import Entrance, Upload, dicom_files, take_files, unpack_zip
from triage.service.intake.header import MAX_HEADER, read_header
from triage.service.records import cohorts
from triage.service.records import queue as waiting
from triage.service.records.models import CohortStudy

log = logging.getLogger(__name__)

SEPARATOR = "\n"  # between the folders of a study that share none of their own
AHEAD = 8  # studies that are stored and wait, at most
SPARE_BYTES = 5 << 30  # of the disk that cohorts leave to live studies
LOOK_S = 1.0
RETRY_S = 10.0


def find_studies(folders: Sequence[Path]) -> list[str]:
    """One entry for each study below `folders`: its folder, or its zip file.

    Folders that hold series of the same study are one entry, named after the folder that they alone
    share, or else joined by SEPARATOR. Only the first image of a folder is read. Sorted.
    """
    zips: list[str] = []
    by_study: dict[str, list[Path]] = {}
    for folder in folders:
        for where, names in _walk(folder.expanduser().resolve()):
            zips += [str(where / name) for name in names if _is_zip(where / name)]
            uid = _study_of(where / name for name in names)
            if uid is not None:
                by_study.setdefault(uid, []).append(where)
    leaves = {leaf: uid for uid, found in by_study.items() for leaf in found}
    return sorted({*zips, *(_named(uid, found, leaves) for uid, found in by_study.items())})


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    if folder.is_file():
        yield folder.parent, [folder.name]
        return
    for where, folders, names in os.walk(folder):
        folders.sort()
        yield Path(where), sorted(names)


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return head[:4] == b"PK\x03\x04" and not dataset.is_dicom(head)


def _study_of(paths: Iterable[Path]) -> str | None:
    """StudyInstanceUID of the first image among `paths`."""
    for path in paths:
        try:
            with path.open("rb") as file:
                head = file.read(MAX_HEADER)
            header = read_header(head) if dataset.is_dicom(head[:132]) else None
        except (OSError, NotAnalysed):
            continue
        if header is not None and not header.is_directory:
            return header.study_instance_uid
    return None


def _named(uid: str, found: list[Path], leaves: dict[Path, str]) -> str:
    shared = Path(os.path.commonpath(found))
    alone = all(leaves[leaf] == uid for leaf in leaves if leaf.is_relative_to(shared))
    return str(shared) if alone else SEPARATOR.join(map(str, found))


class Taker:
    """Takes what the cohorts wait for into the store; runs where the home is owned."""

    def __init__(self, intake: Entrance) -> None:
        self.intake = intake
        self.database = intake.database
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="triage-cohorts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the study that is being taken."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=60)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                taken = self.step()
            except NotStoredError as error:
                log.warning("cohorts: %s; trying again", type(error).__name__)
                self._stopping.wait(RETRY_S)
            except Exception:
                log.exception("cohorts")
                self._stopping.wait(RETRY_S)
            else:
                self._stopping.wait(0 if taken else LOOK_S)

    def step(self) -> bool:
        """Take the next study, if there is one and room for it."""
        with self.database.reading() as session:
            if waiting.count_unfinished(session) >= AHEAD:
                return False
            found = next(
                (
                    (cohort, entry)
                    for cohort in reversed(cohorts.newest(session, 1000))
                    if cohort.cancelled_at is None
                    for entry in cohorts.waiting(session, cohort.id, 1)
                ),
                None,
            )
        if found is None:
            return False
        if shutil.disk_usage(self.intake.files.home).free < SPARE_BYTES:
            log.warning("cohorts wait: less than %d GB are free", SPARE_BYTES >> 30)
            self._stopping.wait(RETRY_S)
            return False
        cohort, entry = found
        self._take(entry, Source("cohort", cohort.name or cohort.id, background=True))
        return True

    def _take(self, entry: CohortStudy, source: Source) -> None:
        reason, study_ids = "UNREADABLE", list[str]()
        try:
            study_ids = self._taken(entry.folder, source).studies
        except NotAnalysed as refusal:
            reason = refusal.code
        except OSError as error:
            log.warning("cohorts: %s", error.strerror)
        with self.database.session() as session:
            if not study_ids:
                cohorts.refused(session, entry.id, reason)
            for number, study_id in enumerate(study_ids):
                if not number:
                    cohorts.taken(session, entry.id, study_id)
                else:  # a folder, or zip, of several studies
                    name = f"{entry.folder}{SEPARATOR}({number + 1})"
                    cohorts.add_taken(session, entry.cohort_id, name, study_id)

    def _taken(self, folder: str, source: Source) -> Upload:
        paths = [Path(path) for path in folder.split(SEPARATOR)]
        if len(paths) == 1 and paths[0].is_file():
            return unpack_zip(self.intake, paths[0], source)
        if missing := [path for path in paths if not path.is_dir()]:
            raise FileNotFoundError(2, f"No such folder: {missing[0].name}")
        every = (file for path in paths for file in dicom_files(path))
        return take_files(self.intake, every, source, copy=True)
