"""The floor: bytes over the measured decode rate, operations over the measured matrix rate.

Nothing can be quicker on this machine with these networks; a pipeline is judged by its multiple.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import torch
from pydicom.encaps import generate_frames
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from triage.dicom.codecs import CODECS
from triage.dicom.syntax import SYNTAXES
from triage.inference.engines import cores
from triage.inference.networks import Networks
from triage.inference.score import Evidence
from triage.nets.volume_net import LEVELS, POOL, REGIONS
from triage.types import Anatomy

SIDE = 1536  # of the matrices that are multiplied
SAMPLE = 24  # slices that the decode rate is measured on


def matrix_rate(precision: str) -> float:
    """Floating-point operations a second of a dense product on all cores."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(SIDE, SIDE).to(kind)
    return 2 * SIDE**3 / _quickest(lambda: a @ a, 6)


def decode_s(folder: Path) -> float:
    """Seconds that the codec alone needs for a compressed series, on all cores."""
    files = sorted(folder.iterdir())
    picked = [pydicom.dcmread(p) for p in files[:: max(1, len(files) // SAMPLE)]]
    start = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(decoded, picked))
    return (time.perf_counter() - start) / len(picked) * len(files)


def decoded(item: Any) -> Any:
    """One frame by the decoders that the pipeline uses."""
    plane = {
        "rows": item.Rows,
        "columns": item.Columns,
        "bits_stored": item.BitsStored,
        "signed": item.PixelRepresentation,
        "syntax": item.file_meta.TransferSyntaxUID,
    }
    [content] = generate_frames(item.PixelData, number_of_frames=1)
    return CODECS[SYNTAXES[plane["syntax"]].codec or ""](content, plane)


def decode_s_native(folder: Path) -> float:
    """The same for native pixels: the files' bytes at the rate that this machine copies them."""
    files = sorted(folder.iterdir())
    with ThreadPoolExecutor(cores()) as pool:
        return _quickest(lambda: list(pool.map(lambda p: len(p.read_bytes()), files)), 2)


def _quickest(call: Callable[[], Any], repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def operations(nets: Networks, anatomy: Anatomy, evidence: Evidence) -> dict[str, float]:
    """Floating-point operations of each network on one study, as counted by torch."""
    slices = 0.0
    for target, views in evidence.looked.items():
        size = nets.slices.size[target]
        picture = torch.zeros(1, 3, size, size)
        trunk = _count(lambda x, t=target: nets.slices.features(x, t), picture)  # type: ignore[misc]
        tails = _count(lambda x, t=target: nets.slices.logits(t, x),  # type: ignore[misc]
                       nets.slices.features(picture, target))  # fmt: skip
        slices += (trunk + tails) * sum(len(v.slices) for v in views)
    box = [s.stop - s.start for s in evidence.volume_box or ()]
    sides = [-(-n // 8) * 8 for n in box]
    hu = torch.zeros(1, 1, *(n * p for n, p in zip(sides, POOL, strict=True)))
    regions = torch.zeros(1, len(REGIONS), *sides)
    volume = _count(nets.volume.finest, hu, regions, torch.zeros(1, len(LEVELS)))
    whole = [-(-n // 8) * 8 for n in (s // p for s, p in
             zip(anatomy.labels.shape[1:], (3, 3, 2), strict=True))]  # fmt: skip
    found = _count(nets.localiser, torch.zeros(1, 1, *whole))
    return {"localiser": found, "slices": slices, "volume": volume}


@torch.no_grad()
def _count(call: Callable[..., Tensor] | nn.Module, *inputs: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        call(*inputs)
    return float(counter.get_total_flops())
