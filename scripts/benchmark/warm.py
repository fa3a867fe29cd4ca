"""The pipeline in a process of its own, as a warm worker is: networks loaded once, many studies.

Nothing else lives in that process, so that its memory is the pipeline's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

from triage.dicom import decode, open_study
from triage.imaging.resample import to_grid
from triage.imaging.volume import straightened, to_volume
from triage.inference.localise import localise
from triage.inference.networks import Networks, load_networks
from triage.inference.score import gather
from triage.nets.bundle import find_bundle
from triage.pipeline import analyse
from triage.settings import Settings
from triage.types import Report

from . import floor, measure

_loaded: list[Networks] = []  # of the worker


@dataclass(frozen=True)
class Warm:
    """A worker with loaded networks."""

    pool: ProcessPoolExecutor

    def about(self) -> dict[str, str]:
        """Engine and sha256 of the bundle."""
        return self.pool.submit(_about).result()

    def row(self, name: str, source: Path, repeats: int) -> dict[str, Any]:
        """Times, memory and floor of one study; the time is not that of the first analysis."""
        return self.pool.submit(_row, name, source, repeats).result()


@contextmanager
def worker(model: str) -> Iterator[Warm]:
    """Start the process and load the networks of the bundle `model` in it."""
    with ProcessPoolExecutor(1, get_context("spawn"), _load, (model,)) as pool:
        yield Warm(pool)


def _load(model: str) -> None:
    nets = load_networks(find_bundle(model), "auto")
    nets.programs.warm_up()
    _loaded.append(nets)


def _about() -> dict[str, str]:
    engine = _loaded[0].programs.engine
    return {"engine": f"{engine.name} {engine.precision}", "bundle": _loaded[0].ref.sha256}


def _row(name: str, source: Path, repeats: int) -> dict[str, Any]:
    nets = _loaded[0]
    with tempfile.TemporaryDirectory() as out:

        def once() -> Report:
            return analyse(source, Path(out), networks=nets, settings=Settings())

        peak = measure.peak_mb(once)
        rows = [measure.run(once) for _ in range(repeats)]
    report, best = min(rows, key=lambda r: r[1]["wall_s"])
    row = {"study": name, **best, "peak_mb": peak}
    row |= {"status": report.status.value, "stages": report.timings}
    return row | _floor(source, nets, row)


# The networks' calls that belong to a stage.
CALLS = {
    "localiser": ("localiser",),
    "slices": ("features", "maps"),
    "volume": ("volume_features",),
}


@contextmanager
def _clocked(nets: Networks) -> Iterator[dict[str, float]]:
    """Seconds within the networks alone, by stage, of what is analysed meanwhile."""
    seconds = dict.fromkeys(CALLS, 0.0)

    def clocked(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            began = time.perf_counter()
            out = call(*inputs)
            seconds[stage] += time.perf_counter() - began
            return out

        return run

    with ExitStack() as stack:
        for stage, names in CALLS.items():
            for name in names:
                own = clocked(stage, getattr(nets.programs, name))
                stack.enter_context(patch.object(nets.programs, name, own))
        yield seconds


def _floor(source: Path, nets: Networks, row: dict[str, Any]) -> dict[str, Any]:
    """The floor of one study and the multiple of it that the pipeline took."""
    with open_study(source, Settings()) as opened:
        grid = to_grid(straightened(to_volume(decode(opened.series[0], Settings()))))
    with _clocked(nets) as alone:
        anatomy = localise(nets, grid)
        evidence = gather(nets, grid, anatomy)
    done = floor.operations(nets, anatomy, evidence)
    rate = floor.matrix_rate(nets.programs.engine.precision)
    compressed = "uncompressed" not in row["study"] and row["study"] != "real"
    decoding = floor.decode_s(source) if compressed else floor.decode_s_native(source)
    least = {k: v / rate for k, v in done.items()}
    stages, total = row["stages"], decoding + sum(least.values())
    named = (("localiser", "localise_s"), ("slices", "slices_s"), ("volume", "volume_s"))
    return {
        "matrix_gflops": round(rate / 1e9),
        "decode_floor_s": round(decoding, 3),
        "network_floor_s": {k: round(v, 3) for k, v in least.items()},
        "network_multiple": {k: round(alone[k] / least[k], 1) for k, _ in named},
        "stage_multiple": {k: round(stages[s] / least[k], 1) for k, s in named},
        "floor_s": round(total, 3),
        "multiple": round(row["wall_s"] / total, 1),
    }
