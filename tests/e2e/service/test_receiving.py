"""Studies sent by DCMTK's storescu: a verdict each, whoever dies meanwhile."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from .acknowledged import acknowledged, current_verdicts, stored, unfinished_files
from .peers import send, storescu
from .running import Running, service, until
from .small import study_uid, write_study

SENDERS = 8
pytestmark = pytest.mark.usefixtures("storescu")


def test_a_study_gets_its_verdict_and_what_happens_is_told(
    running: Running, tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "sent", 1, comment="suspected")
    sent = send(running.dicom_port, folder)
    study = running.finished(study_uid(1))
    seconds = time.monotonic() - sent - float(running.settings["series_quiet_s"])
    print(f"verdict {seconds:.1f} s beyond the quiet time")
    assert (study["status"], study["priority"], study["instances"]) == ("analysed", "stat", 28)
    assert len(study["versions"]) == 1
    # a late image opens the study again; the verdict is never taken back in silence
    late = write_study(tmp_path / "late", 1, slices=29, comment="suspected")
    send(running.dicom_port, late / "029.dcm")
    again = running.whole(study_uid(1), 29)
    assert again["version"] == 2
    assert again["priority"] == "stat"
    # the same images again change nothing
    send(running.dicom_port, folder)
    assert len(running.finished(study_uid(1))["versions"]) == 2


def test_many_senders_at_once(running: Running, tmp_path: Path) -> None:
    """None refused, none lost, each exactly one current verdict."""
    numbers = range(100, 100 + SENDERS)
    folders = [write_study(tmp_path / "sent", n) for n in numbers]
    senders = [storescu(running.dicom_port, folder) for folder in folders]
    told = [acknowledged(sender) for sender in senders]
    assert [sender.returncode for sender in senders] == [0] * SENDERS
    assert [len(uids) for uids in told] == [28] * SENDERS
    for number in numbers:
        study = running.finished(study_uid(number))
        assert (study["status"], study["instances"]) == ("analysed", 28)
    assert set().union(*told) <= set(stored(running.home))
    assert set(current_verdicts(running.home).values()) == {1}


def test_kill_9_of_the_service_loses_nothing(tmp_path: Path) -> None:
    """At two random moments: while images arrive, and somewhat later."""
    dice = random.Random(1)  # noqa: S311 - moments, no secrets
    running = Running(tmp_path / "home")
    told: set[str] = set()
    try:
        running.start()
        for number, latest in enumerate((0.3, 2.0)):
            folder = write_study(tmp_path / "sent", number, slices=60)
            sender = storescu(running.dicom_port, folder)
            time.sleep(dice.uniform(0.02, latest))
            running.kill()
            told |= acknowledged(sender)
            running.start()
            assert told <= set(stored(running.home)), "an acknowledged image is gone"
            assert unfinished_files(running.home) == []
            send(running.dicom_port, folder)  # the scanner tries again
        for number in range(2):
            assert running.whole(study_uid(number), 60)["status"] == "analysed"
        assert current_verdicts(running.home) == {study_uid(0): 1, study_uid(1): 1}
        assert len(stored(running.home)) == 120
    finally:
        running.stop()


def test_kill_9_of_the_worker_child_costs_one_retry(running: Running, tmp_path: Path) -> None:
    send(running.dicom_port, write_study(tmp_path / "sent", 200, comment="slow"))
    until(lambda: running.studies()[0]["stage"] == "slices", 120, "the analysis runs")
    (child,) = running.children()
    os.kill(child, signal.SIGKILL)
    until(lambda: running.children() not in ([], [child]), 120, "a new child")
    assert running.get("/healthz")["status"] == "ok"
    uid = study_uid(200)
    assert running.study(uid)["status"] == "analysing"
    assert running.delete(uid) == 200


def test_it_listens_where_it_was_told_and_stops_cleanly(tmp_path: Path) -> None:
    with service(tmp_path / "home") as running:
        stream = running.events()
        assert next(stream)[0] == "hello"
        pids = [running.pid, *running.children()]
        assert running.listening() == {running.http_port, running.dicom_port}
        assert running.peers() <= {"127.0.0.1"}
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 20
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
