"""The wall clock jumps by days, forwards and backwards, while studies come in and are analysed."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.drills.house import SLICES, house
from triage.service.records import models

DAY_S = 86400.0
JUMPS = (DAY_S, -DAY_S, 30 * DAY_S, -400 * DAY_S, 3600.0, -3600.0, 0.0)
STORED = 0x0000


class Clock:
    """What `time.time` and the service's own `now` are off by, in seconds."""

    off = 0.0


@contextmanager
def jumping() -> Iterator[Clock]:
    """Every wall clock that the service looks at, in this process; the monotonic one is nobody's to
    set, here as on a machine."""
    clock, real_now, real_time = Clock(), models.now, time.time

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=clock.off)

    def now() -> datetime:
        return real_now() + timedelta(seconds=clock.off)

    changed: list[tuple[Any, str, Any]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith("triage.service"):
            continue
        for attribute, old, new in (("now", real_now, now), ("datetime", datetime, Later)):
            if getattr(module, attribute, None) is old and module is not models:
                setattr(module, attribute, new)
                changed.append((module, attribute, old))
    models.now = now
    time.time = lambda: real_time() + clock.off
    try:
        yield clock
    finally:
        time.time, models.now = real_time, real_now
        for module, attribute, old in changed:
            setattr(module, attribute, old)


def jumps(
    folder: Path, rounds: int, seed: int = 7, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Each round the clock jumps before, between or after the images of a study.

    Every study is analysed, once, soon: no deadline is taken for over and none for far away.
    """
    dice = random.Random(seed)  # noqa: S311 - moments, no secrets
    figures = {"rounds": rounds, "jumps": 0, "slowest_s": 0.0}
    with jumping() as clock, house(folder / "home", study_deadline_s=120.0) as at:
        for number in range(1, rounds + 1):
            began = time.monotonic()
            half = dice.randrange(1, SLICES)
            for slices in (range(1, half + 1), range(half + 1, SLICES + 1)):
                clock.off = dice.choice(JUMPS)
                figures["jumps"] += 1
                assert set(at.send(number, list(slices))) == {STORED}
            clock.off = dice.choice(JUMPS)
            found = at.finished(number)
            assert (found["status"], found["priority"]) == ("analysed", "stat"), found["reason"]
            # The first half may have become complete before the second came: a version each.
            assert len(found["versions"]) <= 2
            figures["slowest_s"] = max(figures["slowest_s"], round(time.monotonic() - began, 1))
            assert at.client.get("/readyz").json()["checks"]["worker"] == "ok"
        clock.off = 0.0
    tell(str(figures))
    return figures
