"""Patients in memory: order, errors, ends and memory of the stream."""

from __future__ import annotations

import itertools
import multiprocessing as mp
import os
import resource
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from triage.simulate.patient import Patient
from triage.simulate.stream import Patients, ordered, patient, stream, voxels

COARSE = {"spacing": (8.0, 8.0, 12.0)}


def same(one: Patient, two: Patient) -> bool:
    return torch.equal(one.hu, two.hu) and one.truth == two.truth


def twice(number: int) -> int:
    return 2 * number


def failing(number: int) -> int:
    if number == 3:
        raise ZeroDivisionError("patient 3 is ill")
    return number


def dying(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def large(number: int) -> np.ndarray:
    return np.full(4_000_000, number)  # 32 MB


def test_same_patients_whatever_the_number_of_workers() -> None:
    alone = list(stream(4, patients=3, **COARSE))
    crew = list(stream(4, patients=3, workers=2, **COARSE))
    assert len(crew) == 3 and all(map(same, alone, crew))
    assert same(next(stream(4, first=2, **COARSE)), alone[2])


def test_order_is_kept_and_workers_end() -> None:
    assert list(ordered(twice, range(1, 8), 2)) == [2 * n for n in range(1, 8)]
    endless = ordered(twice, itertools.count(), 2)
    assert [next(endless) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert mp.active_children()
    endless.close()  # type: ignore[attr-defined]
    assert not mp.active_children()


def test_an_error_of_a_worker_is_raised_here() -> None:
    made = ordered(failing, itertools.count(), 2)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError, match="patient 3 is ill") as error:
        next(made)
    assert "in failing" in error.value.__notes__[0]
    assert not mp.active_children()


def test_a_worker_that_dies_is_an_error_not_silence() -> None:
    with pytest.raises(RuntimeError, match=r"patient 1 ended without a result.*-9"):
        list(ordered(dying, range(4), 2))


def test_workers_end_when_their_consumer_is_killed() -> None:
    code = (
        "import itertools, os, signal, sys\n"
        "import multiprocessing as mp\n"
        "from tests.simulate.test_stream import twice\n"
        "from triage.simulate.stream import ordered\n"
        "if __name__ == '__main__':\n"
        "    made = ordered(twice, itertools.count(), 1)\n"
        "    next(made)\n"
        "    print(mp.active_children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    worker = Path(f"/proc/{int(done.stdout)}")
    deadline = time.monotonic() + 30
    while worker.exists() and time.monotonic() < deadline:
        select.select([], [], [], 0.1)
    assert not worker.exists()


def test_memory_does_not_grow_with_the_number_of_patients() -> None:
    """40 results of 32 MB: a queue without an end would hold 1.3 GB."""
    made = ordered(large, range(40), 2)
    peak = 0
    for _ in made:
        for child in mp.active_children():
            pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
            peak = max(peak, pages * resource.getpagesize())
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 0 < peak < 900e6, f"a worker held {peak / 1e6:.0f} MB"
    assert own < 4e9


@pytest.mark.long  # half a minute; the bounded queue is tried above
def test_memory_is_flat_over_many_patients() -> None:
    """Resident memory after 6 and after 30 patients in a process of its own."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from triage.simulate.stream import stream\n"
        "def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "for n, p in enumerate(stream(1, patients=30, spacing=(8.0, 8.0, 12.0)), 1):\n"
        "    if n in (6, 30): print(rss())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    early, late = (int(line) for line in done.stdout.split())
    assert late < early + 60e6, f"{early / 1e6:.0f} MB, later {late / 1e6:.0f} MB"


@pytest.mark.parametrize("wrong", [{"workers": -1}, {"step": 0}, {"variants": 2}])
def test_senseless_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"Expected first|one patient an anatomy"):
        next(stream(1, **wrong))


LOADED = """
from torch.utils.data import DataLoader
from triage.simulate.stream import Patients, voxels

if __name__ == "__main__":
    data = Patients(4, patients=3, turn=voxels, spacing=(8.0, 8.0, 12.0))
    spawned = {"num_workers": 2, "multiprocessing_context": "spawn"}
    for hu, _ in DataLoader(data, batch_size=None, **spawned):
        print(*hu.shape, float(hu.double().sum()), float(hu.double().square().sum()))
"""


def test_as_a_torch_data_set(tmp_path: Path) -> None:
    """In a script of its own: a loader leaves signal handlers and threads in its process."""
    script = tmp_path / "loaded.py"
    script.write_text(LOADED)
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    alone = [hu for hu, _ in Patients(4, patients=3, turn=voxels, **COARSE)]
    assert torch.equal(alone[0][0], patient(4, 0, **COARSE).hu)
    said = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert len(said) == len(alone) == 3
    for told, hu in zip(said, alone, strict=True):
        sums = [float(hu.double().sum()), float(hu.double().square().sum())]
        assert told == pytest.approx([*hu.shape, *sums], rel=1e-12)
    assert partial(patient, 4)(2, **COARSE).hu.shape == alone[2].shape[1:]
