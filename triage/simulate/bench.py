"""One patient's cost, for `scripts/simulator-bench`: processor time and peak memory."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from triage.simulate.patient import simulate
from triage.simulate.study import write_dataset


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_memory(number: int, *, seed: int, spacing: tuple[float, float, float]) -> dict[str, float]:
    """A finished patient in memory; its voxels are dropped at once."""
    start = time.process_time()
    simulate((seed, number), spacing=spacing)
    return {"cpu_s": time.process_time() - start, "peak_mb": _peak_mb()}


def on_disk(number: int, *, seed: int, out: Path) -> dict[str, float]:
    """A patient as a DICOM series of 512 x 512 with masks and tables, below a folder of its own."""
    start = time.process_time()
    write_dataset(out / str(number), 1, seed * 1000 + number)
    return {"cpu_s": time.process_time() - start, "peak_mb": _peak_mb()}
