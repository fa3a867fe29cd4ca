"""The outbox: whatever is due is sent, tried again with growing pauses, and at last given up.

Who keeps the list is behind `Store`. Each destination has a thread of its own, so that one that is
down or slow holds up no other, and none of them the analysis. What was taken twice by mistake is
harmless: every object and message carries the same identifiers each time.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from triage.delivery.destinations import Destination
from triage.delivery.errors import DeliveryError

log = logging.getLogger(__name__)

FIRST_S, LONGEST_S = 5.0, 900.0  # pauses after the first failure, and at most
LOOK_S = 2.0  # how often the list is looked at


class Store(Protocol):
    """The list of what is to be sent. Every call is one transaction."""

    def plan(self) -> int:
        """Note what results have come that nobody sent yet; how many."""

    def take(self, destination: Destination) -> str | None:
        """The id of what is due at this destination, None if nothing is."""

    def done(self, delivery: str) -> None: ...

    def failed(self, delivery: str, error: str, permanent: bool) -> None: ...


def pause_s(attempts: int, roll: Callable[[], float] = random.random) -> float:
    """Seconds before the next try: doubling, with full jitter on its upper half, so that those who
    failed together do not come back together."""
    longest = min(LONGEST_S, FIRST_S * 2.0 ** max(0, attempts - 1))
    return longest * (0.5 + 0.5 * roll())


class Outbox:
    """Sends from `start` to `stop`. `send(destination, delivery id)` raises DeliveryError."""

    def __init__(
        self,
        store: Store,
        destinations: Sequence[Destination],
        send: Callable[[Destination, str], None],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self.store = store
        self.destinations = list(destinations)
        self._send = send
        self._look_s = look_s
        self._stopping = threading.Event()
        self._wakes = {d.name: threading.Event() for d in self.destinations}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        if not self.destinations:
            return
        loops: list[tuple[str, Callable[[], None]]] = [("triage-outbox", self._plan_loop)]
        for to in self.destinations:
            loops.append((f"triage-to-{to.kind}", lambda to=to: self._loop(to)))  # type: ignore[misc]
        for name, loop in loops:
            thread = threading.Thread(target=loop, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, patience_s: float = 5.0) -> None:
        """What is on its way may end within `patience_s`; else it is sent again later."""
        self._stopping.set()
        self.wake()
        for thread in self._threads:
            thread.join(timeout=patience_s)

    def wake(self) -> None:
        """Something is due now."""
        for event in self._wakes.values():
            event.set()

    def problem(self) -> str:
        """ "ok", or which thread ended."""
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        return f"a thread ended: {', '.join(dead)}" if dead else "ok"

    def _plan_loop(self) -> None:
        while not self._stopping.is_set():
            try:
                if self.store.plan():
                    self.wake()
            except Exception as error:  # a database that is away comes back
                log.warning("the outbox could not be filled: %s", type(error).__name__)
            self._stopping.wait(self._look_s)

    def _loop(self, to: Destination) -> None:
        wake = self._wakes[to.name]
        while not self._stopping.is_set():
            wake.clear()
            try:
                delivery = self.store.take(to)
                if delivery is not None:
                    self._one(to, delivery)
                    continue
            except Exception as error:
                log.warning("%s: %s", to.name, type(error).__name__)
            wake.wait(self._look_s)

    def _one(self, to: Destination, delivery: str) -> None:
        try:
            self._send(to, delivery)
        except DeliveryError as error:
            log.warning("%s: delivery %s: %s", to.name, delivery, error)
            self.store.failed(delivery, str(error), error.permanent)
        except Exception as error:
            log.exception("%s: delivery %s", to.name, delivery)
            self.store.failed(delivery, f"fault of ours: {type(error).__name__}", permanent=False)
        else:
            self.store.done(delivery)
