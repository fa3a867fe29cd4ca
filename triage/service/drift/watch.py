"""Looks every few minutes; what it sees is on the admin page, in the metrics and in the API."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from triage.service.access import audit
from triage.service.drift.assess import Assessment, BundleInputs, Moved, assess
from triage.service.records import Database, DatabaseBusyError, DatabaseFullError
from triage.service.records import drift as rows
from triage.service.records.models import now
from triage.settings import Settings

log = logging.getLogger(__name__)
EVERY_S = 600.0
ACTOR = "service"
AWAY = (DatabaseBusyError, DatabaseFullError, DBAPIError, OSError)


class DriftWatch:
    """Of one running service; several on one database do no harm.

    `tell(kind, data)`: an event for whoever listens (`drift`).
    """

    def __init__(
        self, settings: Settings, records: Database, tell: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self.settings, self.records, self._tell = settings, records, tell
        self._bundle = BundleInputs(settings.model)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._one = threading.Lock()
        self.latest = Assessment()
        self.looked_at: datetime | None = None
        self._noted = ""  # sha256 of the bundle

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="triage-drift", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except AWAY as error:  # the next look will do
                log.warning("drift: the database is away: %s", type(error).__name__)
            except Exception:  # a watch that died would watch nothing, silently
                log.exception("drift could not be judged")
            self._stopping.wait(EVERY_S)

    def look(self, at: datetime | None = None) -> Assessment:
        """Take what is new, compare, begin and end warnings. Raises what the database raises."""
        with self._one:
            while not self._stopping.is_set():
                with self.records.session() as session:
                    if rows.collect(session) < rows.AT_ONCE:
                        break
            self._note_bundle()
            with self.records.reading() as session:
                found = assess(session, self._bundle, at or now(), self.settings.drift_since)
                open_now = rows.open_warnings(session)
            moved = {(c.against, m.figure): m for c in found.comparisons for m in c.figures}
            for key, one in moved.items():
                if one.warn and key not in {(w.against, w.figure) for w in open_now}:
                    self._begin(*key, one)
            for warning in open_now:
                known = moved.get((warning.against, warning.figure))
                if known is not None and not known.warn and known.shift.over:
                    self._end(warning.id, warning.against, warning.figure, known)
            self.latest, self.looked_at = found, now()
            return found

    def _note_bundle(self) -> None:
        """Another bundle than at the last look, or at the last start, is on record."""
        sha = self._bundle.read()[0]
        if not sha or sha == self._noted:
            return
        with self.records.session() as session:
            before = rows.last_bundle(session)
            if before != sha:
                about = {"before": before, "sha256": sha}
                audit.record(session, "bundle.changed", ACTOR, self.settings.model, details=about)
        if before not in ("", sha):
            log.warning("another bundle answers now: %s instead of %s", sha[:12], before[:12])
        self._noted = sha

    def _begin(self, against: str, figure: str, moved: Moved) -> None:
        def write(session: Session) -> bool:
            return rows.begin(session, figure, against, moved.to_dict())

        self._note("drift.began", against, figure, moved, write)

    def _end(self, warning: str, against: str, figure: str, moved: Moved) -> None:
        def write(session: Session) -> bool:
            return rows.end(session, warning)

        self._note("drift.ended", against, figure, moved, write)

    def _note(
        self,
        action: str,
        against: str,
        figure: str,
        moved: Moved,
        write: Callable[[Session], bool],
    ) -> None:
        """Row, audit log, log of the service, event: of one change only one of each."""
        details = {"against": against, **moved.to_dict()}
        with self.records.session() as session:
            if not write(session):
                return  # another process was quicker
            audit.record(session, action, ACTOR, figure, details=details)
        log.warning("%s: %s against %s, PSI %.2f", action, figure, against, moved.shift.psi)
        self._tell("drift", {"began": action == "drift.began", **details})
