"""Drills that take minutes, with their figures: `scripts/drills` runs them with its own."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from .acknowledged import acknowledged, current_verdicts, stored, unfinished_files
from .patients import copy_as_new_study, simulate
from .patients import study_uid as uid_of
from .peers import send, storescu
from .running import ROOT, service, until
from .small import study_uid, write_study

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("storescu"), pytest.mark.timeout(3600)]
STUDIES, SENDERS = 60, 50
AIM_S = 15.0  # beyond the quiet time, on two cores


def test_400_slices_from_the_last_response_to_the_verdict(
    tmp_path: Path, thin_patient: list[Path]
) -> None:
    with service(tmp_path / "home", quick=False, threads=0, series_quiet_s=3) as running:
        until(lambda: len(running.children()) >= 1, 60, "the warm child")
        time.sleep(20)  # the networks are loaded: an emergency department does not start cold
        began = time.monotonic()
        sent = send(running.dicom_port, thin_patient[0].parent)
        study = running.finished(uid_of(thin_patient[0]), 900)
        seconds = time.monotonic() - sent
        print(f"\n400 slices received in {sent - began:.1f} s")
        print(f"verdict {seconds:.1f} s after the last response, {seconds - 3:.1f} s beyond quiet")
        print(f"aim: {AIM_S:g} s; analysis: {(study['report'] or {}).get('timings')}")
        assert study["status"] == "analysed"
        assert study["instances"] == 400
        # the networks' libraries, too, open no socket
        assert running.listening() == {running.http_port, running.dicom_port}
        assert running.peers() <= {"127.0.0.1"}


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "pipeline"])
def test_50_senders_at_once(tmp_path: Path, quick: bool) -> None:
    """60 studies of 28 slices: none refused, none lost, each exactly one current verdict."""
    if quick:
        folders = [write_study(tmp_path / "sent", n) for n in range(STUDIES)]
        uids = [study_uid(n) for n in range(STUDIES)]
    else:
        slices = simulate(tmp_path / "patient", "--seed", "6", "--matrix", "64", "--spacing", "4")
        some = slices[:: max(1, len(slices) // 28)][:28]
        folders = [tmp_path / "sent" / str(n) for n in range(STUDIES)]
        uids = [copy_as_new_study(some, f, n) for n, f in enumerate(folders)]
    with service(tmp_path / "home", quick=quick, series_quiet_s=5) as running:
        began = time.monotonic()
        senders = [storescu(running.dicom_port, folder) for folder in folders[:SENDERS]]
        told = [acknowledged(sender) for sender in senders]
        rest = [storescu(running.dicom_port, folder) for folder in folders[SENDERS:]]
        told += [acknowledged(sender) for sender in rest]
        seconds = time.monotonic() - began
        assert [s.returncode for s in [*senders, *rest]] == [0] * STUDIES
        assert [len(uids) for uids in told] == [28] * STUDIES
        print(f"\n{STUDIES * 28} instances in {seconds:.1f} s: {STUDIES * 28 / seconds:.0f}/s")
        studies = [running.finished(uid, 1800) for uid in uids]
        assert [s["instances"] for s in studies] == [28] * STUDIES
        assert {len(s["versions"]) for s in studies} == {1}
        print({s["status"] for s in studies}, f"all after {time.monotonic() - began:.0f} s")
        assert set().union(*told) <= set(stored(running.home))
        assert set(current_verdicts(running.home).values()) == {1}


def test_a_database_that_is_locked_for_a_minute(tmp_path: Path) -> None:
    """Nothing is acknowledged meanwhile, the list still shows, and all is taken afterwards."""
    with service(tmp_path / "home") as running:
        first = write_study(tmp_path / "sent", 1)
        send(running.dicom_port, first)
        running.finished(study_uid(1))
        other = sqlite3.connect(running.home / "triage.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        sender = storescu(running.dicom_port, write_study(tmp_path / "sent", 2))
        told = acknowledged(sender)
        assert told == set()
        assert sender.returncode != 0
        assert running.studies()[0]["study_instance_uid"] == study_uid(1)
        refused = httpx.post(f"{running.url}/api/v1/studies/{study_uid(1)}/acknowledge", timeout=60)
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            503,
            "DATABASE_UNAVAILABLE",
        )
        time.sleep(max(0.0, 60 - (time.monotonic() - began)))
        other.execute("ROLLBACK")
        other.close()
        send(running.dicom_port, tmp_path / "sent" / "2")
        assert running.finished(study_uid(2))["status"] == "analysed"


def test_the_demo_shows_verdicts_and_leaves_nothing_behind(tmp_path: Path) -> None:
    simulate(tmp_path / "patient", "--seed", "6", "--matrix", "128", "--spacing", "4")
    helper = ROOT / "scripts" / "demo_service.py"
    command = [sys.executable, str(helper), str(tmp_path / "patient"), str(tmp_path / "home")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--once"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    print(f"\ndemo: {time.monotonic() - began:.0f} s after the simulation\n{done.stdout}")
    assert done.returncode == 0, done.stderr
    assert "suggested priority" in done.stdout
    assert "http://127.0.0.1:" in done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk needs root: mount -t tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """C-STORE 0xA700, HTTP 507, no partial file, and it recovers unaided."""
    with service(small_disk / "home") as running:
        running.log = tmp_path / "log"
        stop = False
        number = 0
        while not stop and number < 200:
            folder = write_study(tmp_path / "sent", number, slices=60)
            sender = storescu(running.dicom_port, folder)
            told = acknowledged(sender)
            stop = sender.returncode != 0
            number += 1
            assert told <= set(stored(running.home))
        assert stop, "the disk never filled"
        assert unfinished_files(running.home) == []
        assert running.readiness()["disk"] != "ok"
        assert running.get("/healthz")["status"] == "ok"
        for study in running.studies():
            with suppress(AssertionError):
                running.delete(study["id"])
        send(running.dicom_port, write_study(tmp_path / "sent", 900))
        assert running.finished(study_uid(900))["status"] == "analysed"
