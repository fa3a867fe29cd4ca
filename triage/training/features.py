"""Features of the frozen trunk, computed once and kept on disk as float16, memory-mapped.

Each chosen slice is there in `copies` pictures: the first as inference sees it, the others
augmented. Positives and negatives have the same copies, so that nothing but the picture tells them
apart. What an interruption left is gone on with; batches are cut by position, so that the result
does not depend on it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from triage.training.cache import Entry
from triage.training.slices import Sample, picture

BATCH = 32
FLUSH = 10  # batches
COPIES = 3  # one plain, two augmented
NEGATIVES = 2.0  # different negative slices for each positive one
MOST, MOST_BYTES = 24_000, 8 << 30  # slices of one target, and their features on disk
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Features:
    """Trunk features of samples: float16 (N, copies, C, h, w) on disk, and what they are of."""

    samples: tuple[Sample, ...]
    values: NDArray[np.float16]
    persons: tuple[str, ...]  # (N,)
    key: str

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array([s.label for s in self.samples], dtype=np.int64)

    @property
    def truth(self) -> NDArray[np.float32]:
        return np.array([s.truth for s in self.samples], dtype=np.float32)


def room_for(trunk: nn.Module, size: int, copies: int = COPIES) -> int:
    """How many slices fit into `MOST_BYTES`: whole networks keep pictures, 20 times as large."""
    with torch.no_grad():
        one = trunk.eval()(torch.zeros(1, 3, size, size))
    return max(1000, min(MOST, MOST_BYTES // (int(one.numel()) * 2 * copies)))


def choose(samples: Sequence[Sample], seed: int, most: int = MOST) -> list[Sample]:
    """All positives, and `NEGATIVES` times as many different negatives; at most `most` in all."""
    rng = np.random.default_rng(seed)
    positive = [s for s in samples if s.label == 1]
    negative = [s for s in samples if s.label == 0]
    room = min(len(positive), int(most / (1 + NEGATIVES)))
    kept = [positive[i] for i in sorted(rng.permutation(len(positive))[:room])]
    pick = sorted(rng.permutation(len(negative))[: int(NEGATIVES * room)])
    return kept + [negative[i] for i in pick]


def build(
    folder: Path,
    trunk: nn.Module,
    entries: Sequence[Entry],
    samples: Sequence[Sample],
    *,
    size: int,
    seed: int,
    copies: int = COPIES,
    device: torch.device | None = None,
    tell: Tell = lambda name, share: None,
) -> Features:
    """Features of all copies of all samples, from disk where they are there already."""
    device = device or torch.device("cpu")
    key = _key(trunk, entries, samples, size, seed, copies)
    place = folder / key
    place.mkdir(parents=True, exist_ok=True)
    trunk = trunk.to(device).eval()
    with torch.no_grad():
        shape = tuple(trunk(torch.zeros(1, 3, size, size, device=device)).shape[1:])
    total = len(samples) * copies
    path, mark = place / "features.npy", place / "done.json"
    done = json.loads(mark.read_text())["done"] if mark.exists() and path.exists() else 0
    mode = "r+" if done else "w+"
    values = np.lib.format.open_memmap(
        path, mode=mode, dtype=np.float16, shape=(len(samples), copies, *shape)
    )
    flat = values.reshape(total, *shape)
    workers = min(8, os.cpu_count() or 1) if device.type == "cuda" else 1
    with ThreadPoolExecutor(workers) as pool:
        for n, i in enumerate(range(done, total, BATCH), start=1):
            rows = range(i, min(i + BATCH, total))
            x = torch.stack(
                list(pool.map(lambda r: _picture(entries, samples, r, copies, size, seed), rows))
            )
            flat[i : rows.stop] = _features(trunk, x.to(device))
            if n % FLUSH == 0 or rows.stop == total:
                values.flush()
                _mark(mark, rows.stop)
                tell(f"features {rows.stop} of {total}", rows.stop / total)
    persons = tuple(entries[s.entry].person for s in samples)
    return Features(tuple(samples), np.load(path, mmap_mode="r"), persons, key)


def _picture(
    entries: Sequence[Entry],
    samples: Sequence[Sample],
    row: int,
    copies: int,
    size: int,
    seed: int,
) -> Tensor:
    s, copy = samples[row // copies], row % copies
    rng = np.random.default_rng((seed, row)) if copy else None
    return picture(entries[s.entry], s, rng, size)


@torch.no_grad()
def _features(trunk: nn.Module, x: Tensor) -> NDArray[np.float16]:
    out: NDArray[np.float16] = trunk(x).half().cpu().numpy()
    return out


def _mark(path: Path, done: int) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps({"done": done}))
    beside.replace(path)


def _key(
    trunk: nn.Module,
    entries: Sequence[Entry],
    samples: Sequence[Sample],
    size: int,
    seed: int,
    copies: int,
) -> str:
    sha = hashlib.sha256(json.dumps([size, seed, copies]).encode())
    for value in trunk.state_dict().values():
        sha.update(value.cpu().numpy().tobytes())
    for s in samples:
        entry = entries[s.entry]
        name = entry.meta.get("key") or str(entry.folder)
        sha.update(json.dumps([name, *astuple(s)[1:]]).encode())
    return sha.hexdigest()[:16]
