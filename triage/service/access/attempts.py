"""Guessing passwords is made slow: by name, so that nobody is guessed from many places, and by
address, so that nobody tries many names. In memory and bounded; a restart forgets.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE_NAME = 5  # failures before a name has to wait
FREE_ADDRESS = 20  # an address may stand for a whole department
FIRST_S = 30.0  # the first wait; each further failure doubles it
LONGEST_S = 900.0
FORGET_S = 3600.0  # without a failure
KEPT = 10_000  # names and addresses, each


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0
    until: float = 0.0


class Attempts:
    """Failed logins. Any thread may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = KEPT) -> None:
        self._clock, self._kept = clock, kept
        self._lock = threading.Lock()
        self._names: OrderedDict[str, _Failures] = OrderedDict()
        self._addresses: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, name: str, address: str) -> float:
        """Seconds until this name may be tried from there; 0: now."""
        with self._lock:
            found = (self._names.get(name), self._addresses.get(network(address)))
            until = max((f.until for f in found if f is not None), default=0.0)
        return max(0.0, until - self._clock())

    def begin(self, name: str, address: str) -> None:
        """A try counts as a failure until it succeeds: many at once gain nothing."""
        with self._lock:
            self._count(self._names, name, FREE_NAME)
            self._count(self._addresses, network(address), FREE_ADDRESS)

    def succeeded(self, name: str, address: str) -> None:
        """The name is free again. The address keeps its earlier failures: it may know one password
        and guess others."""
        with self._lock:
            self._names.pop(name, None)
            entry = self._addresses.get(network(address))
            if entry is not None:
                entry.count -= 1
                entry.until = 0.0 if entry.count < FREE_ADDRESS else entry.until

    def _count(self, kept: OrderedDict[str, _Failures], key: str, free: int) -> None:
        now = self._clock()
        entry = kept.setdefault(key, _Failures())
        if now - entry.last > FORGET_S:
            entry.count = 0
        entry.count, entry.last = entry.count + 1, now
        if entry.count >= free:
            wait = FIRST_S * 2.0 ** min(entry.count - free, 20)
            entry.until = now + min(wait, LONGEST_S)
        kept.move_to_end(key)
        while len(kept) > self._kept:
            kept.popitem(last=False)


def network(address: str) -> str:
    """What one peer can choose from: an IPv4 address, the /64 of an IPv6 one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
