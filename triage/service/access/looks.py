"""Every look is on record, but a page that asks each second makes one row, not thousands."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable

from triage.service.access import audit
from triage.service.access.principal import Principal
from triage.service.records import Database, DatabaseBusyError, DatabaseFullError, studies

log = logging.getLogger(__name__)
WINDOW_S = 900.0  # the same look by the same session within is the same look
KEPT = 10_000
TITLES = 64
AWAY_S = 30.0  # a database that is locked or full is not waited for again and again
Key = tuple[str, str, str, str, str]


class Looks:
    """Writes `study.opened` and its like. Any thread may call."""

    def __init__(
        self, records: Database, clock: Callable[[], float] = time.monotonic, kept: int = KEPT
    ) -> None:
        self.records, self._clock, self._kept = records, clock, kept
        self._lock = threading.Lock()
        self._seen: OrderedDict[Key, float] = OrderedDict()
        self._away_until = float("-inf")

    def study(self, who: Principal, action: str, study: str, what: str = "") -> None:
        """Record that `who` looked at a study (our id, or its UID); one that is not there is none.

        What cannot be recorded is not shown: raises DatabaseBusyError, DatabaseFullError - but not
        for `local`, who has the machine anyway.
        """
        self._note(who, action, study, what, "success", of_study=True)

    def note(
        self,
        who: Principal,
        action: str,
        object: str = "",
        what: str = "",
        outcome: str = "success",
    ) -> None:
        """Record anything else that `who` did. Raises as `study` does."""
        self._note(who, action, object, what, outcome, of_study=False)

    def refused(self, title: str, address: str) -> None:
        """Record that DICOM from there was refused: an AE title that is not on the list, or TLS
        without the right certificate (no title then). Once in a while for each, never raising; at
        most `TITLES` rows an address, so that nobody fills the log with made-up titles."""
        slot = zlib.crc32(title.encode("utf-8", "replace")) % TITLES
        key = (address, "", "sender.refused", "TLS" if not title else str(slot), "")
        if self._lately(key):
            return
        self._remember(key)
        about = {"address": address, "what": "AE title" if title else "TLS"}
        try:
            with self.records.session() as session:
                audit.record(session, "sender.refused", title or address, "", "failure", about)
        except (DatabaseBusyError, DatabaseFullError) as error:
            log.error("a refusal could not be recorded: %s", type(error).__name__)

    def _note(
        self, who: Principal, action: str, object: str, what: str, outcome: str, of_study: bool
    ) -> None:
        key = (who.name, who.key, action, object, what)
        trusting = who.how == "local"
        if self._lately(key) or (trusting and self._clock() < self._away_until):
            return
        about = {"address": who.address, "how": who.how} | ({"what": what} if what else {})
        try:
            with self.records.session() as session:
                if of_study:
                    found = None if "\x00" in object else studies.find(session, object)
                    if found is None:
                        return
                    object, about["study_instance_uid"] = found.id, found.study_instance_uid
                audit.record(session, action, who.name, object, outcome, about)
        except (DatabaseBusyError, DatabaseFullError) as error:
            if not trusting:
                raise
            log.error("looks cannot be recorded for now: %s", type(error).__name__)
            self._away_until = self._clock() + AWAY_S
            return
        self._remember(key)

    def _lately(self, key: Key) -> bool:
        with self._lock:
            at = self._seen.get(key)
        return at is not None and self._clock() - at < WINDOW_S

    def _remember(self, key: Key) -> None:
        with self._lock:
            self._seen[key] = self._clock()
            self._seen.move_to_end(key)
            while len(self._seen) > self._kept:
                self._seen.popitem(last=False)
