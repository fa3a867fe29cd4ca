"""Workers that are killed, stopped or frozen: their studies are finished by others, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clinic import Clinic, until

HERE = Path(__file__).parent
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a worker process on a clinic and waits until it works; all are killed at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def start(clinic: Clinic, name: str, dead_s: float = 2.0) -> subprocess.Popen[bytes]:
        url, program = clinic.settings.database_url or "", HERE / "worker_process.py"
        worker = subprocess.Popen(
            [sys.executable, program, clinic.settings.home, url, name, str(dead_s)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        )
        running.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"up\n"
        return worker

    yield start
    for worker in running:
        worker.kill()
        worker.wait()
        if worker.stdout is not None:
            worker.stdout.close()


def begun(clinic: Clinic, name: str) -> tuple[str, Path]:
    """A study that is under way until the returned file appears."""
    gate = clinic.settings.home / f"gate-{name}"
    before = clinic.starts(name)
    study = clinic.admit(name, wait_for=str(gate), verdict="suspected")
    until(lambda: clinic.starts(name) == before + 1, "the analysis has begun")
    return study, gate


def test_after_kill_9_the_same_worker_goes_on_on_sqlite(clinic: Clinic, start: Start) -> None:
    first = start(clinic, "a")
    study, gate = begun(clinic, "1.1")
    waiting = clinic.admit("1.2")
    first.kill()
    first.wait()
    received_meanwhile = clinic.admit("1.3")
    gate.touch()
    start(clinic, "a")
    for each in (study, waiting, received_meanwhile):
        assert clinic.finished(each).status == "analysed"
        assert len(clinic.versions(each)) == 1
    assert clinic.versions(study)[0].attempts == 2
    assert (clinic.starts("1.1"), clinic.starts("1.2"), clinic.starts("1.3")) == (2, 1, 1)


@pytest.mark.parametrize("clinic", ["postgresql"], indirect=True)
def test_another_worker_finishes_what_a_killed_one_had_begun(clinic: Clinic, start: Start) -> None:
    killed = start(clinic, "a")
    study, gate = begun(clinic, "2.1")
    start(clinic, "b")
    killed.kill()
    until(lambda: clinic.starts("2.1") == 2, "b has taken it over")
    gate.touch()
    analysis = clinic.finished(study)
    assert (analysis.executor, analysis.attempts) == ("b", 2)
    assert len(clinic.versions(study)) == 1


@pytest.mark.long
@pytest.mark.parametrize("clinic", ["postgresql"], indirect=True)
def test_a_frozen_worker_that_wakes_again_changes_nothing(clinic: Clinic, start: Start) -> None:
    frozen = start(clinic, "e")
    study, gate = begun(clinic, "5.1")
    start(clinic, "f")
    os.kill(frozen.pid, signal.SIGSTOP)
    until(lambda: clinic.starts("5.1") == 2, "f has taken it over")
    gate.touch()
    assert clinic.finished(study).executor == "f"
    os.kill(frozen.pid, signal.SIGCONT)
    for name in ("5.2", "5.3", "5.4"):  # both work, and the late result changed nothing
        assert clinic.finished(clinic.admit(name)).status == "analysed"
    (analysis,) = clinic.versions(study)
    assert (analysis.executor, analysis.current) == ("f", True)
    assert len(list(Path(analysis.folder).parent.iterdir())) == 1


@pytest.mark.long
@pytest.mark.parametrize("clinic", ["postgresql"], indirect=True)
def test_what_a_stopped_worker_leaves_is_taken_at_once(clinic: Clinic, start: Start) -> None:
    stopped = start(clinic, "c", dead_s=300.0)
    study, gate = begun(clinic, "3.1")
    start(clinic, "d", dead_s=300.0)
    stopped.terminate()
    assert stopped.wait(20) == 0
    until(lambda: clinic.starts("3.1") == 2, "d has taken it over")
    gate.touch()
    assert clinic.finished(study).executor == "d"


def test_nothing_is_said_over_the_network(tmp_path: Path) -> None:
    """With SQLite no address is connected or bound: neither by the queue nor by its libraries."""
    code = (
        "import sys; from pathlib import Path; seen = [];"
        "sys.addaudithook(lambda event, args: seen.append((event, str(args[1:])))"
        " if event in ('socket.connect', 'socket.bind', 'socket.getaddrinfo') else None);"
        "from clinic import *; clinic = Clinic(Path(sys.argv[1]));"
        "workflow = Workflow(clinic.settings, clinic.database, load=STAND_IN);"
        "workflow.start(); clinic.finished(clinic.admit('4.1')); workflow.stop(); print(seen)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
    )
    assert done.stdout.strip() == "[]"
