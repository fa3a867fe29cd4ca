"""When are a study's images complete? The network never says; time does (Orthanc, mercure alike).

A study is complete when no image came for `quiet_s`; earlier, when as many came as were announced.
A later image opens it again as a new images version, so a quiet time that was too short costs an
analysis and never an image. A study without a result after `deadline_s` is `not_analysed`
(TIMED_OUT) until its result comes: nothing stays pending in silence.

Time is counted on the monotonic clock, which nobody sets. It starts anew with the process: every
study whose images have no finished analysis is considered again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from sqlalchemy.orm import Session

from triage.results.report import refused, to_dict
from triage.service.access import audit
from triage.service.intake.items import Touched
from triage.service.records import analyses, studies
from triage.service.records.database import Database
from triage.service.records.models import Study
from triage.types import Status

log = logging.getLogger(__name__)

# Each series has its announced images, but another series may follow: wait a little.
SERIES_QUIET_S = 5.0
HELD_S = 2.0  # a sender that brought all images may take its time to say so
RETRY_S = 2.0  # after a failure, of the database for one

Ready = Callable[[str, int], None]


class Completeness:
    """Calls `on_ready(study id, images version)` when the images of a study are complete.

    It is called from a thread of ours, once for each images version, and again after a restart if
    there is no finished analysis: the callee must not mind. If it raises, it is called again.
    `on_deadline` is called after a study was refused for its deadline. A study whose transfer has
    not ended in order waits a little, and as long as `receiving` says that its sender is there.
    """

    def __init__(
        self,
        database: Database,
        on_ready: Ready,
        *,
        quiet_s: float = 30.0,
        deadline_s: float = 3600.0,
        on_deadline: Ready = lambda study_id, images_version: None,
        receiving: Callable[[str], bool] = lambda study_id: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database = database
        self.on_ready = on_ready
        self.on_deadline = on_deadline
        self.quiet_s = quiet_s
        self.deadline_s = deadline_s
        self._receiving = receiving
        self._clock = clock
        self._due: dict[str, float] = {}  # study id -> when it is complete
        self._held: set[str] = set()  # complete but for a sender that has not ended
        self._deadline: dict[str, float] = {}  # study id -> when a result is due
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="triage-complete", daemon=True)

    def start(self) -> None:
        """Consider what the last process left, then watch."""
        self.recover()
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Studies whose images may not be complete yet."""
        return len(self._due)

    def touched(self, grown: Iterable[Touched]) -> None:
        """These studies got images: what `Acceptor.on_stored` is given."""
        now = self._clock()
        with self._changed:
            for study in grown:
                quiet = min(self.quiet_s, SERIES_QUIET_S) if study.series_there else self.quiet_s
                self._due[study.study_id] = now + (0.0 if study.all_there else quiet)
                if not study.background:
                    self._deadline.setdefault(study.study_id, now + self.deadline_s)
            self._changed.notify()

    def complete(self, study_ids: Iterable[str]) -> None:
        """Nothing more will come: a whole upload, or a study fetched from a PACS."""
        now = self._clock()
        with self._changed:
            for study_id in study_ids:
                self._due[study_id] = now
            self._changed.notify()

    def transfer_ended(self, study_ids: Collection[str], lacking: bool) -> None:
        """A sender is done; `lacking`: it broke off, or an image could not be taken.

        Its studies are incomplete then. A whole transfer mends what an earlier one left. Raises
        DatabaseBusyError, DatabaseFullError: the studies stay incomplete.
        """
        if not study_ids:
            return
        again: list[str] = []
        try:
            with self.database.session() as session:
                again = studies.end_transfer(session, sorted(study_ids), lacking)
        finally:  # those that waited for this sender alone are due
            self.complete([*again, *(key for key in study_ids if key in self._held)])

    def recover(self) -> None:
        """Every study whose current images have no finished analysis is due: at once if its images
        were complete, else after a whole quiet time."""
        with self.database.reading() as session:
            pending = studies.without_analysis(session)
        now = self._clock()
        with self._changed:
            for study in pending:
                complete = study.ready_version >= study.images_version
                self._due[study.id] = now if complete else now + self.quiet_s
                if not study.background:
                    self._deadline[study.id] = now + self.deadline_s
            self._changed.notify()

    def step(self) -> float | None:
        """Handle what is due; seconds until the next, None if nothing is watched."""
        for study_id in self._taken(self._due):
            self._handle(study_id, self._declare, self._due)
        for study_id in self._taken(self._deadline):
            self._handle(study_id, self._refuse, self._deadline)
        with self._changed:
            return self._wait_s()

    def _taken(self, times: dict[str, float]) -> Sequence[str]:
        """Takes out what is due. An image that comes from now on puts its study in again."""
        now = self._clock()
        with self._changed:
            due = sorted((at, study_id) for study_id, at in times.items() if at <= now)
            for _, study_id in due:
                del times[study_id]
        return [study_id for _, study_id in due]

    def _handle(self, study_id: str, work: Callable[[str], None], times: dict[str, float]) -> None:
        try:
            work(study_id)
        except Exception:
            log.exception("study %s: will be tried again", study_id)
            with self._changed:
                times.setdefault(study_id, self._clock() + RETRY_S)

    def _declare(self, study_id: str) -> None:
        waited = study_id in self._held
        self._held.discard(study_id)
        with self.database.session() as session:
            study = studies.get(session, study_id)
            if study is None or not study.instance_count:
                return
            if study.interrupted and (not waited or self._receiving(study_id)):
                self._hold(study_id)
                return
            version = study.images_version
            if study.ready_version < version:
                _record(session, study)
            study.ready_version = version
        self.on_ready(study_id, version)

    def _hold(self, study_id: str) -> None:
        """Its sender may be about to end, which makes the study whole: a short while more."""
        with self._changed:
            self._held.add(study_id)
            self._due.setdefault(study_id, self._clock() + HELD_S)

    def _refuse(self, study_id: str) -> None:
        """The deadline: a study without a result for its images is refused, visibly."""
        with self.database.session() as session:
            study = studies.get(session, study_id)
            if study is None or study.status not in (Status.RECEIVED, Status.ANALYSING):
                return
            version = study.images_version
            detail = f"no result {self.deadline_s:g} s after the first image"
            report = to_dict(refused("TIMED_OUT", detail, study.study_instance_uid))
            analyses.refuse(session, study_id, version, report)
        self.on_deadline(study_id, version)

    def _loop(self) -> None:
        while not self._stopping:
            failed = False
            try:
                self.step()
            except Exception:
                log.exception("completeness")
                failed = True
            with self._changed:
                if not self._stopping:
                    self._changed.wait(timeout=RETRY_S if failed else self._wait_s())

    def _wait_s(self) -> float | None:
        """Seconds until something is due; None if nothing is watched. The lock is held."""
        times = [*self._due.values(), *self._deadline.values()]
        return max(0.0, min(times) - self._clock()) if times else None


def _record(session: Session, study: Study) -> None:
    """One row of the audit log for each sender of this images version: a row for each image would
    cost as much as storing it."""
    for route, sender, number in studies.senders(session, study.id, study.images_version):
        about = {
            "study_instance_uid": study.study_instance_uid,
            "route": route,
            "images": number,
            "images_version": study.images_version,
        }
        audit.record(session, "image.received", sender or route, study.id, details=about)
