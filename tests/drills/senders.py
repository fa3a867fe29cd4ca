"""Senders that are slow, break off, send again and send late."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instances import sop_uid

from tests.drills.house import NEGATIVE, SLICES, House, house, message
from tests.e2e.service.running import until
from tests.fuzz.associations import Peer

VERDICTS = ("suspected", "no_finding", "not_excluded")
STORED = 0x0000


def breaking_off(
    folder: Path, rounds: int, seed: int = 3, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """A connection is cut at a random byte, now and then slowly; then the study is sent whole.

    What was acknowledged is there, the part is never called negative, the whole gets its verdict.
    """
    dice = random.Random(seed)  # noqa: S311 - moments, no secrets
    figures = {"rounds": rounds, "acknowledged": 0, "lost": 0, "negative_parts": 0, "parts": 0}
    with house(folder / "home", dicom_timeout_s=2.0) as at:
        for number in range(1, rounds + 1):
            verdict = dice.choice(VERDICTS)
            told = _cut(at, number, verdict, dice)
            figures["acknowledged"] += len(told)
            figures["lost"] += len(told - at.stored(number))
            if 0 < len(told) < SLICES and dice.random() < 0.3:
                part = at.finished(number, len(at.stored(number)))
                figures["parts"] += 1
                figures["negative_parts"] += _liver(part) in NEGATIVE
            assert set(at.send(number, list(range(1, SLICES + 1)), verdict)) == {STORED}
        for number in range(1, rounds + 1):
            until(lambda n=number: _liver(at.finished(n)) is not None, 60, "a verdict")  # type: ignore[misc]
        until(lambda: at.service.intake.receiver.associations == 0, 30, "no connection is left")
        assert list(at.service.files.incoming.iterdir()) == []
    tell(str(figures))
    assert not figures["lost"] and not figures["negative_parts"], figures
    return figures


def _cut(at: House, number: int, verdict: str, dice: random.Random) -> set[str]:
    """Send a study and hang up at a random byte of it; the images that were acknowledged."""
    peer, told = Peer(at.service.intake.receiver.port), set()
    assert peer.associate()
    last = dice.randrange(1, SLICES + 1)
    for k in range(1, last):
        peer.socket.sendall(message(number, k, verdict, k))
        if peer.status() == STORED:
            told.add(sop_uid(number, 1, k))
    data = message(number, last, verdict, last)
    peer.socket.sendall(data[: dice.randrange(len(data))])
    if dice.random() < 0.1:
        peer.drained()  # say nothing more: the receiver hangs up
    peer.close(release=False)
    until(lambda: at.service.intake.receiver.associations == 0, 30, "it noticed")
    return told


def again_and_late(
    folder: Path, rounds: int, seed: int = 4, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Every study three times in other orders, two slices late: one verdict for each version."""
    dice = random.Random(seed)  # noqa: S311 - orders, no secrets
    figures = {"rounds": rounds, "sent": 0, "stored": 0, "versions": 0, "taken_back": 0}
    with house(folder / "home") as at:
        for number in range(1, rounds + 1):
            verdict = dice.choice(VERDICTS)
            first, late = list(range(1, SLICES - 1)), [SLICES - 1, SLICES]
            for slices in (first, first, first):
                dice.shuffle(slices)
                assert set(at.send(number, slices, verdict)) == {STORED}
            before = at.finished(number, SLICES - 2)
            assert (before["version"], _liver(before)) == (1, verdict)
            assert set(at.send(number, [*late, *first, *late], verdict)) == {STORED}
            shown = at.study(number)
            assert shown is not None
            opened = shown["finished_at"] is None
            # Until the new answer is there, only a suspicion of the old one stays.
            figures["taken_back"] += opened and verdict == "suspected" and not shown["flagged_at"]
            assert not (opened and _liver(shown) in NEGATIVE), shown
            after = at.finished(number)
            assert (after["version"], _liver(after), len(after["versions"])) == (2, verdict, 2)
            figures["sent"] += 4 * len(first) + 4
            figures["stored"] += len(at.stored(number))
            figures["versions"] += len(after["versions"])
    tell(str(figures))
    assert figures["stored"] == rounds * SLICES and not figures["taken_back"], figures
    return figures


def _liver(shown: dict[str, Any]) -> str | None:
    found = shown["targets"].get("liver")
    return found["verdict"] if found else None
