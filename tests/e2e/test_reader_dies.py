"""The reading child dies under the service: a reason, never a verdict, and the next is fine."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.dicom import write
from triage.cli.main import call
from triage.dicom import decode, open_study, stack
from triage.inference.networks import load_networks
from triage.nets.bundle import find_bundle
from triage.pipeline import analyse
from triage.reasons import REASONS
from triage.settings import Settings
from triage.settings import settings as process_settings
from triage.types import TARGETS, Priority, Status, Verdict

FAULTS = "tests.dicom.faults:"
TASKS = Path("/proc/self/task")


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write.write_series(folder, write.turned(write.phantom(), "LPS"), syntax="jpeg_2000")
    return folder


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    process_settings.cache_clear()
    yield
    process_settings.cache_clear()


@contextmanager
def killing(which: int, number: signal.Signals) -> Iterator[list[int]]:
    """Sends a signal to the `which`-th reading child that this process starts; yields its id."""
    if not TASKS.is_dir():
        pytest.skip("needs /proc")
    seen: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while len(seen) < which and not stop.is_set():
            for pid in {int(n) for t in TASKS.glob("*/children") for n in t.read_text().split()}:
                command = Path(f"/proc/{pid}/cmdline")
                if pid not in seen and b"triage.dicom.child" in command.read_bytes():
                    seen.append(pid)
                    if len(seen) == which:
                        os.kill(pid, number)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def refused(series: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Code and message of `triage run`, after checking that it refused as it should."""
    assert call(["run", str(series), "--out", str(out)]) == 3
    (line,) = capfd.readouterr().err.splitlines()
    data = json.loads((out / "report.json").read_text())
    assert data["status"] == "not_analysed"
    assert data["targets"] == {}
    assert data["priority"] == "urgent"
    assert [p.name for p in out.iterdir()] == ["report.json"]
    code = str(data["reason"]["code"])
    assert line == f"{code}: {data['reason']['message']} {REASONS[code].fix}"
    return code, line


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.parametrize("which", [1, 2], ids=["headers", "pixels"])
def test_killed_from_outside(
    which: int,
    number: signal.Signals,
    series: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with killing(which, number) as seen:
        code, line = refused(series, tmp_path, capfd)
    assert len(seen) == which
    assert code == "WORKER_FAILED"
    assert number.name in line


@pytest.mark.parametrize(
    ("variable", "value", "task", "code"),
    [
        ("TRIAGE_DECODE_MEMORY_BYTES", "100000000", "take_memory", "TOO_LARGE"),
        ("TRIAGE_DECODE_TIMEOUT_S", "2", "never_end", "TIMED_OUT"),
        ("TRIAGE_DECODE_TIMEOUT_S", "0.01", None, "TIMED_OUT"),
    ],
)
def test_too_much_memory_or_time(
    variable: str,
    value: str,
    task: str | None,
    code: str,
    series: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    if task:
        monkeypatch.setattr(stack, "TASK", FAULTS + task)
    assert refused(series, tmp_path, capfd)[0] == code


@pytest.mark.long
def test_the_next_series_is_analysed(
    series: Path, shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with killing(2, signal.SIGKILL):
        assert refused(series, tmp_path / "one", capfd)[0] == "WORKER_FAILED"
    source = shared / "ct" / "portal_slab_dicom"
    assert call(["run", str(source), "--out", str(tmp_path / "two")]) == 0
    data = json.loads((tmp_path / "two" / "report.json").read_text())
    assert data["status"] == "analysed"
    assert set(data["targets"]) == set(TARGETS)


@pytest.mark.long
def test_one_dead_series_of_two_leaves_no_negative(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The series that nobody read may show the injury: only a suspicion says more than that."""
    image = _image(shared / "ct" / "portal_slab_dicom")
    for name, uid in (("good", "1.2.3.1"), ("bad", "1.2.3.2")):
        write.write_series(
            tmp_path / "in" / name,
            write.turned(image, "LPS"),
            bits=16,
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID=uid,
        )
    monkeypatch.setattr(stack, "TASK", FAULTS + "end_in_folder_bad")
    networks = load_networks(find_bundle("reference"), "cpu")
    report = analyse(tmp_path / "in", networks=networks, settings=Settings())
    assert report.status is Status.ANALYSED
    assert report.priority in (Priority.STAT, Priority.URGENT)
    assert any(w.startswith("WORKER_FAILED") and "1.2.3.2" in w for w in report.warnings)
    for finding in report.findings.values():
        assert finding.verdict in (Verdict.SUSPECTED, Verdict.NOT_ASSESSED)
        if finding.verdict is Verdict.NOT_ASSESSED:
            assert finding.reason == "WORKER_FAILED"


def _image(folder: Path) -> nib.Nifti1Image:
    with open_study(folder, Settings()) as study:
        read = decode(study.series[0], Settings())
    return nib.as_closest_canonical(nib.Nifti1Image(np.asarray(read.hu), read.affine))
