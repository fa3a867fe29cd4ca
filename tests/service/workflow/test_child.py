"""The warm child: it stays, it may die in every way, and it never outlives its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clinic import STAND_IN, drill_settings, until

from triage.service.workflow.child import Child, ChildFailed, DiskFull, Job
from triage.settings import Settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return drill_settings(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def child(settings: Settings) -> Iterator[Child]:
    child = Child(settings, STAND_IN)
    yield child
    child.kill()


def job(folder: Path, **orders: object) -> Job:
    import json

    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    orders = {"name": "1.2", "log": str(folder / "log"), **orders}
    (folder / "in" / "0.dcm").write_text(json.dumps(orders))
    return Job(folder / "in", folder / "out")


def quiet() -> None:
    """A tick that wants nothing."""


def test_it_stays_for_the_next_study_and_tells_its_progress(child: Child, tmp_path: Path) -> None:
    steps: list[tuple[str, float]] = []
    child.run(job(tmp_path / "1"), lambda s, f: steps.append((s, f)), quiet)
    pid = child.pid
    child.run(job(tmp_path / "2"), lambda s, f: None, quiet)
    assert (tmp_path / "2" / "out" / "report.json").exists()
    assert steps == [("reading", 0.1), ("slices", 0.5)]
    assert child.pid == pid is not None


@pytest.mark.parametrize(
    ("how", "error"), [("crash", ChildFailed), ("error", ChildFailed), ("full", DiskFull)]
)
def test_a_failure_ends_it_and_the_next_study_gets_a_fresh_one(
    child: Child, tmp_path: Path, how: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        child.run(job(tmp_path / "1", always=how), lambda s, f: None, quiet)
    assert child.pid is None
    child.run(job(tmp_path / "2"), lambda s, f: None, quiet)
    assert (tmp_path / "2" / "out" / "report.json").exists()


def test_a_hung_one_is_killed_at_the_timeout(settings: Settings, tmp_path: Path) -> None:
    child = Child(settings.model_copy(update={"analysis_timeout_s": 3.0}), STAND_IN)
    with pytest.raises(TimeoutError, match="3 s"):
        child.run(job(tmp_path, always="hang"), lambda s, f: None, quiet)
    assert child.pid is None


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_one_that_takes_too_much_memory_is_killed(settings: Settings, tmp_path: Path) -> None:
    child = Child(settings.model_copy(update={"analysis_memory_bytes": 200 << 20}), STAND_IN)
    with pytest.raises(ChildFailed, match="allowed are 200 MB"):
        child.run(job(tmp_path, always="memory"), lambda s, f: None, quiet)
    assert child.pid is None


def test_what_the_tick_raises_ends_it(child: Child, tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyError("no longer wanted")

    with pytest.raises(KeyError):
        child.run(job(tmp_path, always="hang"), lambda s, f: None, stop)
    assert child.pid is None


def test_it_ends_with_its_worker(tmp_path: Path) -> None:
    job(tmp_path, always="hang")
    code = (
        "import sys; from pathlib import Path; from clinic import *;"
        "from triage.service.workflow.child import Child, Job; folder = Path(sys.argv[1]);"
        "child = Child(drill_settings(folder), STAND_IN); child.start();"
        "print(child.pid, flush=True);"
        "child.run(Job(folder / 'in', folder / 'out'), lambda s, f: None, lambda: None)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    until((tmp_path / "log").exists, "the analysis has begun")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    until(lambda: _is_gone(pid), "the child is gone", 10)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"  # dead; nobody here collects an orphan
