"""The durable steps of one study: claim, compute, commit, tell. Each may run twice.

A step that was recorded is not run again; one that was cut off is. So each looks at the records
first, and the first commit of an analysis stands.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from triage.files import write_atomic
from triage.results.report import REPORT_NAME, refused, to_dict
from triage.service.images.files import Files
from triage.service.records import Database, DatabaseBusyError, DatabaseFullError, analyses, studies
from triage.service.records import queue as waiting
from triage.service.records.models import Analysis, Study
from triage.service.workflow.child import LOAD, Child, ChildFailed, DiskFull, Job
from triage.service.workflow.partial import as_partial
from triage.settings import Settings
from triage.types import Status

log = logging.getLogger(__name__)
T = TypeVar("T")

TRIES = 2  # of the child, by one worker
STARTS = 25  # by workers, which may all have died for other reasons
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
FINISHED = (Status.ANALYSED, Status.NOT_ANALYSED, Status.NOT_APPLICABLE)
PROGRESS_S = 0.5
FULL_S = 10.0  # between tries on a full disk; they count only after `analysis_timeout_s`
LOOK_S = 1.0  # how often a running analysis looks whether it was cancelled
AWAY = (DatabaseBusyError, DatabaseFullError, DBAPIError, OSError)


class Interrupted(BaseException):
    """This process stops: the study stays as it is and is resumed later, here or elsewhere.

    No Exception, so that the queue records neither a result nor an error.
    """


class Cancelled(Exception):
    """Nobody wants the result any more."""


class Outcome(TypedDict):
    """What the computation came to; `failure` is a reason code, or None with a report in `out`."""

    out: str
    failure: str | None
    detail: str


class Steps:
    """The steps of this process, with its warm children."""

    def __init__(
        self, settings: Settings, database: Database, executor: str, load: str = LOAD
    ) -> None:
        self.settings = settings
        self.database = database
        self.executor = executor
        self.stopping = threading.Event()
        self.expired = threading.Event()  # the grace of a stop is over
        self.files = Files(settings.home)
        self.work = self.files.home / "work" / _UNFIT.sub("-", executor)
        self.children = [Child(settings, load) for _ in range(settings.worker_concurrency)]
        # last in, first out: the child that is warm works first
        self._free: queue.LifoQueue[Child] = queue.LifoQueue()
        for child in reversed(self.children):
            self._free.put(child)

    def clean(self) -> None:
        """Remove what an earlier process of this name left of its work."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True, mode=0o700)

    def end(self) -> None:
        """The grace is over: end the children; their studies are interrupted."""
        self.expired.set()
        for child in self.children:
            child.end()

    # ---- claim

    def claim(self, study_id: str, images_version: int, round_: int) -> str | None:
        """The id of the analysis row, or None if there is nothing to do (any more)."""
        return self._certainly(
            lambda session: waiting.claim(session, study_id, images_version, round_, self.executor)
        )

    # ---- compute

    def compute(self, analysis_id: str) -> Outcome | None:
        """Analyse in the warm child, at most twice; None if the analysis is gone or finished."""
        row = self._certainly(lambda s: waiting.started(s, analysis_id, self.executor))
        if row is None:
            return None
        # a folder of its own: another executor may take this analysis for abandoned
        out = self.files.analysis_folder(row.study_id, analysis_id) / secrets.token_hex(4)
        source = self.work / out.name
        child = self._free.get()
        try:
            if row.attempts > STARTS:
                return _outcome(out, "WORKER_FAILED", f"begun {row.attempts} times, never ended")
            paths = self._certainly(lambda s: waiting.files_of(s, row.study_id, row.images_version))
            missing = self._until_done(lambda: self._gather(paths, source))
            if missing:
                return _outcome(out, "WORKER_FAILED", f"{missing} images are not in the store")
            return self._tries(child, Job(source, out), analysis_id)
        finally:
            self._free.put(child)
            shutil.rmtree(source, ignore_errors=True)

    def _tries(self, child: Child, job: Job, analysis_id: str) -> Outcome:
        progress, tick = self._progress(analysis_id), self._tick(analysis_id)
        failure, detail, attempt = "WORKER_FAILED", "", 0
        patience = time.monotonic() + self.settings.analysis_timeout_s
        while attempt < TRIES:
            attempt += 1
            shutil.rmtree(job.out, ignore_errors=True)  # parts of two tries must not be mixed
            self._until_done(lambda: job.out.mkdir(parents=True, mode=0o700))
            try:
                child.run(job, progress, tick)
                return _outcome(job.out)
            except Cancelled:
                return _outcome(job.out, "CANCELLED")
            except TimeoutError as error:
                failure, detail = "TIMED_OUT", f"{error}, {attempt} times"
            except ChildFailed as error:
                failure, detail = "WORKER_FAILED", f"{error}, {attempt} times"
                if isinstance(error, DiskFull) and time.monotonic() < patience:
                    attempt -= 1
                    self.stopping.wait(FULL_S)
            if self.stopping.is_set():
                raise Interrupted
            log.warning("analysis %s: %s %s", analysis_id, failure, detail)
        return _outcome(job.out, failure, detail)

    def _gather(self, paths: Sequence[str], folder: Path) -> int:
        """Links to the images of one version in a folder of their own; returns how many lack."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        missing = 0
        for number, path in enumerate(paths):
            stored = self.files.root / path
            missing += not stored.is_file()
            (folder / f"{number:06d}.dcm").symlink_to(stored)
        return missing

    def _progress(self, analysis_id: str) -> Callable[[str, float], None]:
        last, when = "", 0.0

        def progress(stage: str, fraction: float) -> None:
            nonlocal last, when
            if stage == last and time.monotonic() - when < PROGRESS_S:
                return
            last, when = stage, time.monotonic()
            try:
                with self.database.session() as session:
                    analyses.progress(session, analysis_id, stage, fraction)
            except AWAY as error:  # for people only: the analysis goes on
                log.warning("progress could not be noted: %s", type(error).__name__)

        return progress

    def _tick(self, analysis_id: str) -> Callable[[], None]:
        looked = 0.0

        def tick() -> None:
            nonlocal looked
            if self.stopping.is_set() and self.expired.is_set():
                raise Interrupted
            if time.monotonic() - looked < LOOK_S:
                return
            looked = time.monotonic()
            try:
                with self.database.reading() as session:
                    unwanted = waiting.is_cancelled(session, analysis_id)
            except AWAY:
                return
            if unwanted:
                raise Cancelled

        return tick

    # ---- commit

    def commit(self, analysis_id: str, outcome: Outcome) -> str | None:
        """Report, findings and the switch of what is current in one transaction.

        Returns the study's status, None if the study is gone. While images are missing, or newer
        ones are there, only a suspicion is told (`partial.as_partial`).
        """
        out = Path(outcome["out"])
        whole = None if outcome["failure"] else read_report(out)

        def write(session: Session) -> tuple[dict[str, Any], str] | None:
            analysis = session.get(Analysis, analysis_id)
            study = None
            if analysis is not None:
                study = session.get(Study, analysis.study_id, with_for_update=True)
            if analysis is None or study is None:
                return None
            if analysis.finished_at is None:
                code = outcome["failure"] or "WORKER_FAILED"
                report = whole or to_dict(
                    refused(code, outcome["detail"], study.study_instance_uid or None)
                )
                newer = study.images_version > analysis.images_version
                if newer or studies.is_incomplete(study):
                    report = as_partial(report)
                analyses.finish(session, analysis_id, report, str(out))
            return analysis.report or {}, analysis.folder

        done = self._certainly(write)
        if done is None or done[1] != str(out):  # deleted, or another executor's result stands
            shutil.rmtree(out, ignore_errors=True)
            return None if done is None else str(done[0]["status"])
        for other in out.parent.iterdir() if out.parent.is_dir() else ():
            if other != out:  # left by executors that died
                shutil.rmtree(other, ignore_errors=True)
        text = json.dumps(done[0], indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._until_done(lambda: write_atomic(out / REPORT_NAME, text.encode("utf-8")))
        return str(done[0]["status"])

    # ---- help

    def _certainly(self, work: Callable[[Session], T]) -> T:
        """`work` in one transaction, tried until the database takes it or this process stops."""

        def once() -> T:
            with self.database.session() as session:
                return work(session)

        return self._until_done(once)

    def _until_done(self, once: Callable[[], T]) -> T:
        wait = 0.25
        while True:
            try:
                return once()
            except AWAY as error:
                log.warning("trying again: %s", type(error).__name__)
                if self.stopping.wait(wait):
                    raise Interrupted from error
                wait = min(wait * 2, 5.0)


def _outcome(out: Path, failure: str | None = None, detail: str = "") -> Outcome:
    return Outcome(out=str(out), failure=failure, detail=detail)


def read_report(folder: Path) -> dict[str, Any] | None:
    """The finished report in `folder`, or None."""
    try:
        report = json.loads((folder / REPORT_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    finished = isinstance(report, dict) and report.get("status") in FINISHED
    return report if finished else None
