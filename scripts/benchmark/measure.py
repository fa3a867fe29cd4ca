"""Wall time, processor time and memory of a call, this process and its children together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PAUSE_S = 0.1  # between two looks at the memory: each walks page tables


def run(call: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """The call's result; seconds by the wall clock and of processors."""
    before, start = _cpu_s(), time.perf_counter()
    result = call()
    wall, cpu = time.perf_counter() - start, _cpu_s() - before
    return result, {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)}


def peak_mb(call: Callable[[], Any], *, own: bool = True) -> int:
    """Most memory during a call, in a run of its own: looking at it takes a third of the time.

    Without `own` only the processes below this one count.
    """
    with Peak(own) as peak:
        call()
    return round(peak.bytes / 1e6)


def best(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """The quickest of some repeats: what other programs took is left out as far as it can be."""
    return min((run(call)[1] for _ in range(repeats)), key=lambda row: row["wall_s"])


def _cpu_s() -> float:
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


class Peak:
    """Largest memory (proportional set size where /proc tells it) of the tree of this process.

    Without `own` this process itself does not count.
    """

    def __init__(self, own: bool = True) -> None:
        self.bytes = 0
        self._own = own
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self.bytes = tree_bytes(self._own)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(PAUSE_S):
            self.bytes = max(self.bytes, tree_bytes(self._own))


def tree_bytes(own: bool = True) -> int:
    """Resident memory of this process and all below it; shared pages count once (PSS)."""
    return sum(_pss(pid) for pid in _tree(os.getpid())[0 if own else 1 :])


def _tree(root: int) -> list[int]:
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                todo += [int(child) for child in task.read_text().split()]
            except OSError:
                continue  # it has just ended
    return found


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
