"""Results into the outbox, and each one built for whom it is for.

The DICOM objects are made in a process of their own, niced: pixels of an analysis take seconds and
memory that intake and API must not miss. They are made once for an analysis and kept beside it, so
that whatever is sent again is the same to the last byte.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from triage.delivery import destinations as configured
from triage.delivery import webhook
from triage.delivery.destinations import Destination
from triage.delivery.errors import DeliveryError
from triage.delivery.outbox import Outbox, pause_s
from triage.delivery.sending import Payload, send
from triage.results.subject import Subject
from triage.service.access import audit
from triage.service.api.view import summaries
from triage.service.images.files import Files
from triage.service.orders.compare import differences
from triage.service.records import Database, deliveries, orders, studies
from triage.service.records import queue as waiting
from triage.service.records.models import Analysis, Study, now
from triage.settings import Settings

if TYPE_CHECKING:
    from triage.results.dicom.common import Analysis as Answer

log = logging.getLogger(__name__)

BUILD_S = 900.0  # seconds that making the DICOM objects may take
DICOM_KINDS = ("dicom", "stow")


class Deliveries:
    """The outbox over the records: `outbox.Store`, and what is sent."""

    def __init__(self, settings: Settings, database: Database, files: Files) -> None:
        """Raises ValueError naming the setting that makes no sense."""
        self.settings = settings
        self.database = database
        self.files = files
        self.destinations = configured.destinations(settings)
        self.objects = configured.objects(settings)
        self._kinds = {d.name: d.kind for d in self.destinations}
        self._making = threading.Lock()
        self.outbox = Outbox(self, self.destinations, self._send)

    def start(self) -> None:
        with self.database.session() as session:
            deliveries.know(session, list(self._kinds))
        self.outbox.start()

    def stop(self) -> None:
        self.outbox.stop()

    # ---- the list

    def plan(self) -> int:
        with self.database.session() as session:
            return deliveries.plan(session, self._kinds)

    def take(self, destination: Destination) -> str | None:
        lease = BUILD_S + 20 * self.settings.deliver_timeout_s
        with self.database.session() as session:
            return deliveries.take(session, destination.name, lease)

    def done(self, delivery: str) -> None:
        with self.database.session() as session:
            row = deliveries.finish(session, delivery)
            if row is not None:
                about = {"destination": row.destination, "analysis": row.analysis_id}
                audit.record(session, "delivery.sent", "outbox", delivery, details=about)

    def failed(self, delivery: str, error: str, permanent: bool) -> None:
        with self.database.session() as session:
            row = deliveries.get(session, delivery)
            if row is None:
                return
            given_up = permanent or row.attempts >= self.settings.deliver_attempts
            again = None if given_up else now() + timedelta(seconds=pause_s(row.attempts))
            deliveries.fail(session, delivery, error, again)
            if given_up:
                about = {"destination": row.destination, "error": error}
                audit.record(session, "delivery.failed", "outbox", delivery, "failure", about)

    # ---- one delivery

    def _send(self, to: Destination, delivery: str) -> None:
        with self.database.reading() as session:
            row = deliveries.get(session, delivery)
            analysis = session.get(Analysis, row.analysis_id) if row is not None else None
            study = studies.get(session, analysis.study_id) if analysis is not None else None
            if row is None or analysis is None or study is None:
                return  # deleted meanwhile
            what = self._what(session, to, delivery, study, analysis)
        payload = self._payload(to, what)
        send(
            to,
            payload,
            ae_title=self.settings.ae_title,
            timeout_s=self.settings.deliver_timeout_s,
        )

    def _what(
        self, session: Session, to: Destination, delivery: str, study: Study, analysis: Analysis
    ) -> _What:
        same = DICOM_KINDS if to.kind in DICOM_KINDS else (to.kind,)
        previous = deliveries.sent_before(session, analysis, same)
        order = orders.of_study(session, study)
        notes: list[str] = []
        if order is not None:
            parts = [s.body_part for s in studies.series_of(session, study.id)]
            notes = differences(order, study, parts, analysis.report)
        summary = summaries(session, [study])[0] if to.kind == "webhook" else {}
        images = waiting.files_of(session, study.id, analysis.images_version)
        return _What(
            delivery,
            study,
            analysis,
            previous,
            tuple(notes),
            list(images),
            order.placer_order_number if order else "",
            summary,
        )

    def _payload(self, to: Destination, what: _What) -> Payload:
        if to.kind == "webhook":
            at = (what.analysis.finished_at or now()).isoformat()
            body = webhook.payload("study.analysed", at, what.summary)
            return Payload(body=body, message_id=f"msg_{what.delivery}")
        if to.kind in DICOM_KINDS:
            return Payload(files=self._dicom(what))
        from triage.results import fhir, hl7  # highdicom takes a second to import

        analysis, subject = what.answer(), what.subject()
        if to.kind == "fhir":
            return Payload(fhir=fhir.bundle(analysis, subject))
        return Payload(hl7=hl7.message(analysis, subject))

    def _dicom(self, what: _What) -> list[Path]:
        """The objects of an analysis: those that lie there, else made now."""
        analysis = what.analysis
        folder = Path(analysis.folder) if analysis.folder else None
        if folder is None:  # refused without an analysis
            folder = self.files.analysis_folder(what.study.id, analysis.id) / "refused"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        done = folder / "dicom"
        with self._making:  # of two destinations, one makes them for both
            self._make(what, folder, done)
        return sorted(done.glob("*.dcm"))

    def _make(self, what: _What, folder: Path, done: Path) -> None:
        if not (done / "complete").is_file():
            images = self.files.home / "work" / f"deliver-{secrets.token_hex(8)}"
            try:
                images.mkdir(parents=True, mode=0o700)
                for number, path in enumerate(what.images):
                    (images / f"{number:06d}.dcm").symlink_to(self.files.root / path)
                self._build(what, folder, images)
            except OSError as error:
                raise DeliveryError(f"the objects cannot be written: {error.strerror}") from error
            finally:
                shutil.rmtree(images, ignore_errors=True)

    def _build(self, what: _What, folder: Path, images: Path) -> None:
        job = {
            "folder": str(folder),
            "images": str(images),
            "kinds": sorted(self.objects),
            "settings": self.settings.model_dump(mode="json"),
            "report": what.analysis.report,
            "key": what.analysis.id,
            "version": what.analysis.version,
            "previous": what.previous,
            "notes": list(what.notes),
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", "triage.results.dicom.build"],
                input=json.dumps(job).encode(),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                capture_output=True,
                timeout=BUILD_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DeliveryError("making the DICOM objects took too long") from error
        if done.returncode == 3:
            said = done.stdout.decode("utf-8", "replace").strip()
            raise DeliveryError(f"no DICOM objects: {said}"[:400], permanent=True)
        if done.returncode != 0:
            log.error("making DICOM objects: %s", done.stderr.decode("utf-8", "replace")[-2000:])
            raise DeliveryError(f"making the DICOM objects failed ({done.returncode})")


@dataclass(frozen=True)
class _What:
    """One delivery with everything that its payload may need."""

    delivery: str
    study: Study
    analysis: Analysis
    previous: str
    notes: tuple[str, ...]
    images: list[str]
    placer: str
    summary: dict[str, Any]

    def answer(self) -> Answer:
        from triage.results.dicom.common import Analysis as Answer

        report = self.analysis.report or {}
        return Answer(report, self.analysis.id, self.analysis.version, self.previous, self.notes)

    def subject(self) -> Subject:
        study = self.study
        return Subject(
            study.study_instance_uid,
            study.patient_id,
            study.patient_name,
            study.patient_birth_date,
            study.patient_sex,
            study.accession_number,
            study.study_date,
            self.placer,
            self.analysis.finished_at or now(),
        )
