"""The whole intake of `triage serve`: what is started together and stopped together."""

from __future__ import annotations

import logging
import threading

from triage.service.images.files import Files
from triage.service.images.retention import delete_expired
from triage.service.intake.accept import Acceptor
from triage.service.intake.complete import Completeness, Ready
from triage.service.intake.dimse import Receiver, Sender
from triage.service.intake.watch import Watcher
from triage.service.records.database import Database
from triage.settings import Settings

log = logging.getLogger(__name__)

RETENTION_EVERY_S = 3600.0


class Intake:
    """Everything that takes images.

    `on_ready(study id, images version)`: the images are complete, analyse them (see
    `complete.Completeness`; it may be called again for the same version and must not mind).
    `on_deadline(study id, images version)`: the study was refused, TIMED_OUT.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        files: Files,
        on_ready: Ready,
        on_deadline: Ready = lambda study_id, images_version: None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.files = files
        self.completeness = Completeness(
            database,
            on_ready,
            quiet_s=settings.series_quiet_s,
            deadline_s=settings.study_deadline_s,
            on_deadline=on_deadline,
            receiving=self._receiving,
        )
        self.acceptor = Acceptor(
            database, files, self.completeness.touched, settings.study_deadline_s
        )
        self.receiver = Receiver(self.acceptor, files, settings, self._ended)
        self.watcher = Watcher(self, settings.watch_folder) if settings.watch_folder else None
        self._stopping = threading.Event()
        self._retention = threading.Thread(
            target=self._keep_deleting, name="triage-retention", daemon=True
        )

    def start(self) -> None:
        """Sweep the disk, consider what the last process left, and listen.

        The database is upgraded and `files` is open. Raises OSError (the DICOM port is taken).
        """
        swept = self.files.sweep(self.database)
        if swept.removed:
            log.info("removed %d files that were never acknowledged", swept.removed)
        for path in swept.missing:
            log.error("stored image is missing on disk: %s", path)
        self.acceptor.start()
        self.completeness.start()
        self._retention.start()
        self.receiver.start()
        if self.watcher is not None:
            self.watcher.start()

    def stop(self) -> None:
        """Stop listening, commit what came, stop watching."""
        self._stopping.set()
        if self.watcher is not None:
            self.watcher.stop()
        self.receiver.stop()
        self.acceptor.stop()
        self.completeness.stop()

    def checks(self) -> dict[str, str]:
        """Name of each part -> "ok" or what is wrong: for health checks."""
        parts = {
            "receiver": self.receiver.alive,
            "intake": self.acceptor.alive,
            "completeness": self.completeness.alive,
        }
        if self.watcher is not None:
            parts["watched folder"] = self.watcher.alive
        return {name: "ok" if alive else f"{name} has stopped" for name, alive in parts.items()}

    def _ended(self, sender: Sender) -> None:
        self.completeness.transfer_ended(sender.studies, sender.broke_off)

    def _receiving(self, study_id: str) -> bool:
        return self.receiver.receiving(study_id)

    def _keep_deleting(self) -> None:
        while not self._stopping.wait(RETENTION_EVERY_S):
            try:
                deleted = delete_expired(self.database, self.files, self.settings.retention_days)
                if deleted:
                    log.info("deleted %d studies whose time was over", len(deleted))
            except Exception:
                log.exception("retention")
