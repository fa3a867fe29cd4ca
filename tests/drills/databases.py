"""A database that is locked, or that is no more where it was."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.drills.house import SLICES, House, house

STORED = 0x0000
FILES = ("triage.db", "triage.db-wal", "triage.db-shm")


def locked(
    folder: Path, rounds: int, seed: int = 5, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Another program holds the database for a while: what was refused is sent again, all is there.

    A lock of 5 s and more is refused (the sender is told), a shorter one is waited for.
    """
    dice = random.Random(seed)  # noqa: S311 - moments, no secrets
    figures = {"rounds": rounds, "stored": 0, "refused": 0, "lost": 0}
    with house(folder / "home") as at:
        for number in range(1, rounds + 1):
            other = sqlite3.connect(folder / "home" / "triage.db", isolation_level=None, timeout=30)
            other.execute("BEGIN IMMEDIATE")
            sender = threading.Thread(target=_send, args=(at, number, figures))
            sender.start()
            time.sleep(dice.choice((0.3, 1.0, 7.0)))
            other.execute("ROLLBACK")
            other.close()
            sender.join()
            there = sum(len(at.stored(n)) for n in range(1, number + 1))
            figures["lost"] += max(0, figures["stored"] - there)
            assert set(at.send(number, list(range(1, SLICES + 1)))) == {STORED}
            figures["stored"] = number * SLICES
            assert at.finished(number)["status"] == "analysed"
    tell(str(figures))
    assert not figures["lost"], figures
    return figures


def _send(at: House, number: int, figures: dict[str, int]) -> None:
    statuses = at.send(number, list(range(1, SLICES + 1)))
    figures["stored"] += statuses.count(STORED)
    figures["refused"] += SLICES - statuses.count(STORED)


def vanished(
    folder: Path, rounds: int, seed: int = 6, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """The SQLite file is moved away while a scanner sends, and put back.

    Meanwhile nothing is acknowledged and /readyz is red; afterwards all goes on. Started without
    its database, the service refuses, and no image is removed.
    """
    from triage.service.service import CannotStartError

    dice = random.Random(seed)  # noqa: S311 - moments, no secrets
    figures = {"rounds": rounds, "acknowledged": 0, "refused": 0, "lost": 0}
    home, away = folder / "home", folder / "away"
    away.mkdir(parents=True)
    with house(home) as at:
        for number in range(1, rounds + 1):
            few = dice.randrange(1, SLICES)
            told = at.send(number, list(range(1, few + 1))).count(STORED)
            _move(home, away)
            refused = at.send(number, list(range(few + 1, SLICES + 1)))
            ready = at.client.get("/readyz")
            shown = at.client.get("/api/v1/studies")
            _move(away, home)
            assert STORED not in refused, refused
            assert (ready.status_code, shown.status_code) == (503, 503)
            assert "Traceback" not in ready.text + shown.text
            figures["acknowledged"] += told
            figures["refused"] += len(refused)
            figures["lost"] += told - len(at.stored(number))
            assert set(at.send(number, list(range(1, SLICES + 1)))) == {STORED}
            assert at.finished(number)["status"] == "analysed"
            assert at.client.get("/readyz").json()["checks"]["database"] == "ok"
    _move(home, away)
    images = sorted((home / "images").rglob("*.dcm"))
    try:
        with house(home):
            raise AssertionError("it started without its database")
    except CannotStartError as error:
        assert "TRIAGE_DATABASE_URL" in str(error)
    assert sorted((home / "images").rglob("*.dcm")) == images, "images are gone"
    for left in home.glob("triage.db*"):
        left.unlink()
    _move(away, home)
    with house(home) as at:
        assert len(at.stored(1)) == SLICES
    tell(str(figures))
    assert not figures["lost"], figures
    return figures


def _move(source: Path, target: Path) -> None:
    for name in FILES:
        if (source / name).exists():
            (source / name).rename(target / name)
