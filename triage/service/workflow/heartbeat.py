"""Which workers live: each lets a number in the records grow, and the others watch it.

Only one's own monotonic clock counts: a machine whose clock is a day off is neither dead nor does
it take others for dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from triage.service.records.queue import STOPPED, Beat

PULSE_S = 2.0
DEAD_S = 20.0  # ten missed beats
FORGET_S = 86400.0


class Watch:
    """Remembers when each pulse was last seen to move."""

    def __init__(self, dead_s: float = DEAD_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.dead_s = dead_s
        self._clock = clock
        self._seen: dict[str, tuple[tuple[str, int], float]] = {}

    def look(self, beats: Iterable[Beat]) -> None:
        """Take note of the pulses as they are now."""
        now = self._clock()
        for beat in beats:
            pulse = (beat.boot, beat.number)
            if self._seen.get(beat.executor, (None,))[0] != pulse:
                self._seen[beat.executor] = (pulse, now)

    def dead(self, holders: Collection[str]) -> list[str]:
        """Those of `holders` that stopped cleanly, or whose pulse has not moved for `dead_s`.

        A holder without any pulse is watched from the first time that it is named.
        """
        now = self._clock()
        for executor in holders:
            self._seen.setdefault(executor, (("", 0), now))
        return [executor for executor in holders if self._is_dead(executor, now)]

    def alive(self) -> list[str]:
        """Workers whose pulse moves."""
        now = self._clock()
        return [e for e, (pulse, _) in self._seen.items() if pulse[0] and not self._is_dead(e, now)]

    def long_gone(self) -> list[str]:
        """Workers without a pulse for `FORGET_S`; they are not watched any more."""
        now = self._clock()
        gone = [e for e, (_, since) in self._seen.items() if now - since > FORGET_S]
        for executor in gone:
            del self._seen[executor]
        return gone

    def _is_dead(self, executor: str, now: float) -> bool:
        (_, number), since = self._seen[executor]
        return number == STOPPED or now - since > self.dead_s
