"""kill -9 at random points while senders send: nothing lost, nothing told twice or wrongly."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from instances import study_uid

from tests.drills.warm_service import WarmRunning
from tests.e2e.service.acknowledged import acknowledged, stored
from tests.e2e.service.leaks import leaked
from tests.e2e.service.peers import send, storescu
from tests.e2e.service.running import Running, until
from tests.e2e.service.small import write_study

VERDICTS = ("suspected", "no_finding", "not_excluded")
SLICES, SENDERS = 24, 3
SETTLE_EVERY = 10  # rounds, after which every verdict is looked at
NEGATIVE = ("no_finding", "not_excluded")


@dataclass
class Sent:
    """One study as a sender has it."""

    number: int
    folder: Path
    verdict: str
    slices: int = SLICES

    @property
    def uid(self) -> str:
        return study_uid(self.number)


@dataclass
class Figures:
    rounds: int = 0
    killed: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    lost: int = 0
    changed: int = 0  # stored, but not as it was sent
    studies: int = 0
    told_twice: int = 0
    told_wrongly: int = 0
    back_s: float = 0.0  # longest time from the kill to the next answer


def kill_rounds(
    folder: Path, rounds: int, seed: int = 9, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Three new studies, one sent again and one late slice a round; then something is killed."""
    dice = random.Random(seed)  # noqa: S311 - moments, no secrets
    running = WarmRunning(folder / "home", series_quiet_s=1)
    figures, studies, told = Figures(), [], set[str]()
    try:
        running.start()
        for number in range(rounds):
            new = [_study(folder, 10 * number + k, dice) for k in range(SENDERS)]
            folders = _folders(new, studies, dice)
            senders = [storescu(running.dicom_port, folder) for folder in folders]
            studies += new
            _wait_for_a_moment(running, senders, dice)
            figures.back_s = max(figures.back_s, _kill(running, dice, figures))
            got = set().union(*(acknowledged(sender) for sender in senders))
            told |= got
            _whole_on_disk(running, told, got, studies, figures)
            _no_negative_of_a_part(running, studies, figures)
            for path, sender in zip(folders, senders, strict=True):
                if sender.returncode:  # the scanner tries again
                    send(running.dicom_port, path)
            figures.rounds, figures.acknowledged = number + 1, len(told)
            tell(f"round {number + 1} of {rounds}: {figures}")
            if number % SETTLE_EVERY == SETTLE_EVERY - 1 or number == rounds - 1:
                _settled(running, studies, figures)
        assert leaked(running.home, running.log) == [], "a patient's name is in the log"
    finally:
        running.close()
    found = vars(figures)
    wrong = ("lost", "changed", "told_twice", "told_wrongly")
    assert not any(found[name] for name in wrong), str(figures)
    return found


def _study(folder: Path, number: int, dice: random.Random) -> Sent:
    verdict = dice.choice(VERDICTS)
    return Sent(number, write_study(folder / "sent", number, SLICES, verdict), verdict)


def _folders(new: list[Sent], old: list[Sent], dice: random.Random) -> list[Path]:
    """What is sent: the new studies; one is sent again, and another one has a late slice."""
    paths = [study.folder for study in new]
    if old:
        paths.append(dice.choice(old).folder)
        grown = dice.choice(old)
        grown.slices += 1
        late = grown.folder.parent / f"late-{time.monotonic_ns()}"
        write_study(late, grown.number, grown.slices, grown.verdict)
        name = f"{grown.slices:03d}.dcm"
        (late / str(grown.number) / name).rename(grown.folder / name)
        shutil.rmtree(late)
        if grown.folder not in paths:
            paths.append(grown.folder)
    return paths


def _wait_for_a_moment(running: Running, senders: list[Popen[bytes]], dice: random.Random) -> None:
    """Until so many images more are stored, whatever the machine's speed; or when all were sent,
    and a little longer: while studies become complete and are analysed."""
    if dice.random() < 0.7:
        goal = _rows(running.home) + dice.randrange(SENDERS * SLICES)
        until(
            lambda: _rows(running.home) >= goal or all(s.poll() is not None for s in senders),
            120,
            "images come",
        )
        time.sleep(dice.uniform(0.0, 0.02))
        return
    for sender in senders:
        sender.wait(timeout=120)
    time.sleep(dice.uniform(0.0, 4.0))


def _rows(home: Path) -> int:
    database = sqlite3.connect(f"file:{home / 'triage.db'}?mode=ro", uri=True)
    (found,) = database.execute("SELECT COUNT(*) FROM instances").fetchone()
    database.close()
    return int(found)


def _kill(running: Running, dice: random.Random, figures: Figures) -> float:
    """SIGKILL to the service, to it and its child, or to the child; seconds until it answers."""
    whom = dice.choice(("service", "service", "service", "all", "child"))
    figures.killed[whom] = figures.killed.get(whom, 0) + 1
    children = running.children()
    began = time.monotonic()
    if whom != "service":
        for pid in children[:1] if whom == "child" else children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if whom != "child":
        running.kill()
        running.start()
    return round(time.monotonic() - began, 1)


def _whole_on_disk(
    running: Running, told: set[str], got: set[str], studies: list[Sent], figures: Figures
) -> None:
    """Every acknowledged image is there; those of this round byte for byte as they were sent."""
    there = stored(running.home)
    figures.lost = len(told - set(there))
    sent = {
        uid: path
        for study in studies
        for path in study.folder.iterdir()
        if (uid := _uid(study, path)) in got
    }
    for uid in got & set(there):
        figures.changed += not there[uid].read_bytes().endswith(_data_set(sent[uid]))


def _uid(study: Sent, path: Path) -> str:
    return f"{study.uid}.1.{int(path.stem)}"


def _data_set(path: Path) -> bytes:
    data = path.read_bytes()
    return data[144 + int.from_bytes(data[140:144], "little") :]


def _no_negative_of_a_part(running: Running, studies: list[Sent], figures: Figures) -> None:
    """A study of which slices are missing is called negative nowhere. (A late slice that never came
    is none: nobody can know of it.)"""
    ours = {study.uid for study in studies}
    for shown in running.studies():
        missing = shown["study_instance_uid"] in ours and shown["instances"] < SLICES
        if missing and _liver(shown) in NEGATIVE:
            figures.told_wrongly += 1


def _liver(shown: dict[str, Any]) -> str | None:
    found = shown["targets"].get("liver")
    return found["verdict"] if found else None


def _settled(running: Running, studies: list[Sent], figures: Figures) -> None:
    """What lacks is sent once more; then each study has its own verdict, for all its slices."""
    for study in studies:
        if _count(running, study) != study.slices:
            send(running.dicom_port, study.folder)
    for study in studies:
        shown = running.whole(study.uid, study.slices, 240)
        right = shown["status"] == "analysed" and _liver(shown) == study.verdict
        if not right:
            figures.told_wrongly += 1
            print(
                f"{study.uid}: {shown['status']}, {_liver(shown)} for {study.verdict}", flush=True
            )
    figures.studies = len(studies)
    figures.told_twice = told_twice(running.home)


def _count(running: Running, study: Sent) -> int:
    with suppress(Exception):
        return int(running.study(study.uid)["instances"])
    return 0


def told_twice(home: Path) -> int:
    """Studies with more or less than one current analysis, of another version than their images,
    or with two finished analyses of the same images."""
    database = sqlite3.connect(f"file:{home / 'triage.db'}?mode=ro", uri=True)
    current = database.execute(
        "SELECT s.id FROM studies s LEFT JOIN analyses a ON a.study_id = s.id AND a.current "
        "GROUP BY s.id HAVING COUNT(a.id) != 1 OR MAX(a.images_version) != s.images_version"
    ).fetchall()
    twice = database.execute(
        "SELECT study_id FROM analyses WHERE finished_at IS NOT NULL "
        "GROUP BY study_id, images_version, round HAVING COUNT(*) > 1"
    ).fetchall()
    database.close()
    return len({*current, *twice})
