"""The audit log on its way to a log server, as it grows: TRIAGE_AUDIT_SYSLOG.

A row counts as sent once the server has closed the connection after it; what was not is sent again,
so a row may arrive twice and none is left out. How far it came is kept in the database.
"""

from __future__ import annotations

import logging
import threading
from itertools import islice

from sqlalchemy import update

from triage.service.access import audit, syslog
from triage.service.records import Database, studies
from triage.service.records.models import Counter
from triage.settings import Settings

log = logging.getLogger(__name__)
SENT = "audit_rows_sent"
AT_ONCE = 200  # rows of one connection
LOOK_S = 2.0
LONGEST_S = 300.0  # between tries while the server is away


class Shipping:
    """One thread of the service. `alive` is true where it is not configured."""

    def __init__(self, settings: Settings, records: Database) -> None:
        self.settings, self.records = settings, records
        self.failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="triage-audit", daemon=True)

    def start(self) -> None:
        if self.settings.audit_syslog:
            self._thread.start()

    def stop(self) -> None:
        """What is left goes with the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=syslog.TIMEOUT_S)

    def step(self) -> int:
        """Send what is new; the number of rows. Raises OSError, ValueError."""
        to = syslog.address(self.settings.audit_syslog)
        context = syslog.tls(self.settings.audit_syslog_ca, self.settings.audit_syslog_cert)
        host = syslog.host_name()
        with self.records.reading() as session:
            sent = studies.counters(session).get(SENT, 0)
            rows = list(islice(audit.rows(session, sent), AT_ONCE))
        if not rows:
            return 0
        syslog.send((syslog.message(row, host) for row in rows), to, context)
        with self.records.session() as session:
            changed = session.execute(
                update(Counter).where(Counter.name == SENT).values(value=rows[-1]["id"])
            )
            if not changed.rowcount:  # type: ignore[attr-defined]
                session.add(Counter(name=SENT, value=rows[-1]["id"]))
        return len(rows)

    def _loop(self) -> None:
        wait = 0.0
        while not self._stop.wait(wait):
            try:
                full = self.step() == AT_ONCE
                self.failures, wait = 0, 0.0 if full else LOOK_S
            except Exception as error:
                self.failures += 1
                wait = min(LOOK_S * 2.0 ** min(self.failures, 10), LONGEST_S)
                log.warning("audit log: the log server is away: %s", type(error).__name__)
