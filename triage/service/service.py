"""The running service: records, images, intake, workflow, started and stopped together."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from triage.service import errors
from triage.service.access import audit, heads, startup, users
from triage.service.access.attempts import Attempts
from triage.service.access.bind import always_login, no_users
from triage.service.access.guard import Guard
from triage.service.access.principal import Principal, local
from triage.service.access.shipping import Shipping
from triage.service.api.view import summaries
from triage.service.delivering import Deliveries
from triage.service.drift.watch import DriftWatch
from triage.service.events import Hub
from triage.service.images.files import Files, HomeInUseError
from triage.service.images.retention import delete_study
from triage.service.intake.service import Intake
from triage.service.metrics import Metrics
from triage.service.orders import taker
from triage.service.ready import Bundle
from triage.service.records import (
    Database,
    DatabaseBusyError,
    DatabaseFullError,
    analyses,
    lists,
    queue,
    studies,
)
from triage.service.records.models import Instance, Study, now
from triage.service.volumes import Volumes
from triage.service.workflow import control
from triage.service.workflow.child import LOAD
from triage.service.workflow.cohort import Taker
from triage.service.workflow.heartbeat import Watch
from triage.service.workflow.identity import WorkerInUseError
from triage.service.workflow.workflow import Workflow
from triage.settings import Settings

log = logging.getLogger(__name__)
LATELY = timedelta(minutes=2)  # what changed within is compared again and again: it costs nothing
REMEMBERED = 5000  # studies whose newest version was observed


class CannotStartError(RuntimeError):
    """Why the service cannot start, in one line, and what to do about it."""


class Service:
    """Everything behind the HTTP app. `start` and `stop` block; every other method may run in any
    thread.

    `load`: what the analysing child runs, see `workflow.child.Child`; tests give another one.
    """

    def __init__(self, settings: Settings, load: str = LOAD) -> None:
        self.settings = settings
        self.home = settings.home.expanduser().resolve()
        try:
            self.records = Database.at_home(self.home, settings.database_url)
        except (SQLAlchemyError, ValueError, ImportError) as error:
            raise CannotStartError(f"TRIAGE_DATABASE_URL cannot be used: {error}") from error
        self.files = Files(self.home, settings.max_instance_bytes)
        self.volumes = Volumes(settings)
        self.bundle = Bundle(settings.model)
        self.drift = DriftWatch(settings, self.records, self._tell)
        self.metrics = Metrics(self.records, lambda: self.drift.latest)
        self.guard = Guard(settings, self.records)
        self.attempts = Attempts()
        self.shipping = Shipping(settings, self.records)
        self.hub = Hub(self.look)
        self.workflow = (
            Workflow(settings, self.records, load=load) if settings.embedded_worker else None
        )
        self.intake = Intake(settings, self.records, self.files, on_ready=self._ready)
        self.cohorts = Taker(self.intake)
        try:
            self.deliveries = Deliveries(settings, self.records, self.files)
            self.orders = taker.listener(settings, self.records)
        except ValueError as error:
            raise CannotStartError(str(error)) from error
        self._watch = Watch()
        self._observed: dict[str, int] | None = None
        self._running = ExitStack()

    # ---- life

    def start(self) -> None:
        """Take the home, bring the database up, work, listen. Raises CannotStartError."""
        with ExitStack() as stack:
            self._take_home()
            stack.callback(self.files.close)
            self._open_records()
            stack.callback(self.records.close)
            self._record_start()
            self.shipping.start()
            stack.callback(self.shipping.stop)
            stack.callback(self._record_stop)
            if self.workflow is not None:
                try:
                    self.workflow.start()
                except WorkerInUseError as error:
                    raise CannotStartError(str(error)) from error
                stack.callback(self.workflow.stop)
            try:
                self.intake.start()
            except OSError as error:
                where = f"{self.settings.dicom_host}:{self.settings.dicom_port}"
                raise CannotStartError(
                    f"The DICOM receiver cannot listen on {where}: {error.strerror or error}. Set "
                    "TRIAGE_DICOM_PORT, or look at TRIAGE_DICOM_TLS_*."
                ) from error
            stack.callback(self.intake.stop)
            self.cohorts.start()
            stack.callback(self.cohorts.stop)
            self.deliveries.start()
            stack.callback(self.deliveries.stop)
            self.drift.start()
            stack.callback(self.drift.stop)
            self._listen_for_orders(stack)
            self._running = stack.pop_all()

    def stop(self) -> None:
        """Stop listening first, then working; what runs is resumed at the next start."""
        self._running.close()

    def _listen_for_orders(self, stack: ExitStack) -> None:
        if self.orders is None:
            return
        try:
            self.orders.start()
        except OSError as error:
            where = f"{self.settings.hl7_host}:{self.settings.hl7_port}"
            raise CannotStartError(
                f"HL7 orders cannot be listened for on {where}: {error.strerror or error}. Set "
                "TRIAGE_HL7_PORT."
            ) from error
        stack.callback(self.orders.stop)

    def _take_home(self) -> None:
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(self.home, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
            self.files.open()
        except HomeInUseError as error:
            raise CannotStartError(f"{error} (TRIAGE_HOME).") from error
        except OSError as error:
            raise CannotStartError(
                f"The home {self.home} cannot be written: {error.strerror}. Set TRIAGE_HOME."
            ) from error

    def _open_records(self) -> None:
        shown = self.records.url.render_as_string(hide_password=True)
        try:
            if self.records.is_new() and self.files.holds_images():
                raise CannotStartError(
                    f"The database {shown} is new, but images lie below {self.files.studies}: they "
                    "would be removed as never acknowledged. Put the database back, or set "
                    "TRIAGE_DATABASE_URL; to begin anew, move images and analyses away."
                )
            self.records.upgrade()
        except (DatabaseBusyError, DatabaseFullError, SQLAlchemyError, OSError) as error:
            cause = getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error
            said = " ".join(str(cause).split())[:200]
            raise CannotStartError(
                f"The database {shown} cannot be opened: {said}. Look whether another program "
                "holds it, or set TRIAGE_DATABASE_URL."
            ) from error

    def _record_start(self) -> None:
        with self.records.reading() as session:
            if always_login(self.settings) and not users.any_active(session):
                raise CannotStartError(no_users(self.settings))
        self._record(lambda session: startup.started(session, self.settings))

    def _record_stop(self) -> None:
        self._record(startup.stopped)

    def _record(self, write: Callable[[Session], None]) -> None:
        """A full disk or a locked database must keep the service neither from starting (it says
        what is wrong) nor from ending."""
        try:
            with self.records.session() as session:
                write(session)
                head = audit.head(session)
            heads.note(self.home, head)
        except (DatabaseBusyError, DatabaseFullError, OSError) as error:
            log.error("start or end could not be recorded: %s", type(error).__name__)

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # no event loop: nobody listens
            self.hub.publish_soon(kind, data)

    def _ready(self, study_id: str, images_version: int) -> None:
        if self.workflow is not None:
            self.workflow.on_ready(study_id, images_version)

    # ---- for the API

    def image_path(self, row: Instance) -> Path:
        return self.files.path(row)

    def look(self) -> list[dict[str, Any]]:
        """The studies that may have changed lately, as in the list; for the events."""
        with self.records.reading() as session:
            found = summaries(session, lists.changed(session, now() - LATELY))
            self._watch.look(queue.beats(session))
        self._observe(found)
        return found

    def _observe(self, found: list[dict[str, Any]]) -> None:
        """Measure the analyses that ended since the last look."""
        ended = {s["id"]: int(s["version"]) for s in found if s["finished_at"] and s["version"]}
        known, first = self._observed or {}, self._observed is None
        fresh = [] if first else [i for i, version in ended.items() if known.get(i, 0) < version]
        kept = list(known.items())[-REMEMBERED:]
        self._observed = dict(kept) | ended
        for study_id in fresh:
            with self.records.reading() as session:
                study = session.get(Study, study_id)
                current = analyses.current(session, study_id)
            if study is None or current is None:
                continue
            timings = (current.report or {}).get("timings") or {}
            last = None if study.background else study.last_instance_at
            self.metrics.finished(timings, last, current.finished_at)

    def working(self) -> str:
        """ "ok" if any worker, here or elsewhere, is alive."""
        if self.workflow is not None:
            return self.workflow.problem()
        return "ok" if self._watch.alive() else "no worker has been heard of: triage worker"

    def cancel(self, study_id: str, by: Principal | None = None) -> None:
        """`by`: who wants it, for the audit log. ApiError 409 where nothing waits or runs."""
        with self.records.reading() as session:
            study = studies.get(session, study_id)
            ended = study is None or study.status in studies.FINISHED
        if ended or not control.cancel(self.records, study_id):
            raise errors.conflict(
                "Nothing is waiting or running for this study.", "Look at its status first."
            )
        self._note("study.cancelled", study_id, by)

    def analyse_again(self, study_id: str, by: Principal | None = None) -> None:
        """`by`: as for `cancel`.

        Raises ApiError 409 where an analysis waits or runs already, or no image is there.
        """
        with self.records.reading() as session:
            study = studies.get(session, study_id)
            pending = study is not None and study.status in studies.PENDING
        if pending:
            raise errors.conflict("An analysis is on its way already.", "Wait, or cancel it.")
        again = self.workflow.again if self.workflow else None
        done = again(study_id) if again else control.again(self.records, study_id)
        if not done:
            raise errors.conflict("There is no image to analyse.", "Send the study again.")
        self._note("study.analysed", study_id, by)

    def _note(self, action: str, study_id: str, by: Principal | None) -> None:
        who = by or local()
        with self.records.session() as session:
            about = {"address": who.address}
            audit.record(session, action, who.name, study_id, details=about)

    def delete(self, study_id: str, by: Principal | None = None) -> None:
        """Rows first, then files; an analysis under way notices that its study is gone."""
        with self.records.reading() as session:
            study = studies.get(session, study_id)
            uid = study.study_instance_uid if study else None
        who = by or local()
        delete_study(self.records, self.files, study_id, who.name, who.address)
        self.volumes.remove(study_id)
        self._tell("deleted", {"id": study_id, "study_instance_uid": uid})
