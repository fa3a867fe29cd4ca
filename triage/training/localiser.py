"""Training of the localiser on simulated patients, backgrounds with few labels included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triage.nets.localiser import CLASSES, POOL, Localiser, pad_to_stride, scale
from triage.training.cache import Entry
from triage.training.loop import Group, Habits, Parts, Plan, Task, generator
from triage.training.loop import train as run
from triage.types import ORGAN_LABEL

DEPTH = 40  # slices of 6 mm in a training piece
ORGAN_HU = 20.0  # sd of an organ's own shift
BUILD = (0.88, 1.14)
VOXEL_MM = (3.0, 3.0, 6.0)
KNOT_MM, WARP_MM = 60.0, 8.0  # where organs are moved, and by how much (sd)


def load(entry: Entry) -> tuple[Tensor, Tensor]:
    """A patient on the localiser's grid: HU float16 (X, Y, Z), labels uint8 (X, Y, Z)."""
    hu = torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0).float()
    labels = torch.from_numpy(np.array(entry.labels[0])).permute(2, 1, 0)
    return pool_hu(hu, POOL).half(), pool_labels(labels, POOL)


def pool_hu(hu: Tensor, size: Sequence[int]) -> Tensor:
    """(X, Y, Z) averaged over blocks."""
    return F.avg_pool3d(hu[None, None], tuple(size))[0, 0]


def pool_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """The most frequent label of each block; incomplete blocks at the end are left out."""
    shape = [n // k for n, k in zip(labels.shape, size, strict=True)]
    best = torch.zeros(shape, dtype=torch.uint8)
    votes = torch.zeros(shape, dtype=torch.uint8)
    offsets = list(product(*(range(k) for k in size)))
    for c in range(CLASSES):
        same = (labels == c).to(torch.uint8)
        count = torch.zeros(shape, dtype=torch.uint8)
        for offset in offsets:
            x, y, z = (slice(o, n * k, k) for o, n, k in zip(offset, shape, size, strict=True))
            count += same[x, y, z]
        more = count > votes
        best[more] = c
        votes = torch.maximum(votes, count)
    return best


def augment(
    hu: Tensor, labels: Tensor, rng: np.random.Generator, generator: torch.Generator
) -> Tensor:
    """Other scanners, phases and organs: HU (X, Y, Z), labels (X, Y, Z) -> HU.

    Gain and shift of soft tissue, an own shift of each organ in half of the pieces (a phase or a
    diet that was not simulated), noise, and now and then a blur.
    """
    gain, shift = rng.uniform(0.85, 1.15), rng.normal(0, 10)
    out = torch.where(hu > -300, hu * gain + shift, hu)
    if rng.random() < 0.5:
        own = torch.from_numpy(rng.normal(0, ORGAN_HU, CLASSES).astype(np.float32))
        own[0] = 0
        out = out + torch.where(hu > -300, own[labels.long()], torch.zeros(()))
    if rng.random() < 0.3:
        out = F.avg_pool3d(out[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    return out + rng.uniform(0, 15) * torch.randn(out.shape, generator=generator)


def stretch(hu: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Another build: each axis of a patient (X, Y, Z) longer or shorter by up to `BUILD`."""
    shape = [max(8, round(n * float(rng.uniform(*BUILD)))) for n in hu.shape]
    wide = F.interpolate(hu[None, None], shape, mode="trilinear", align_corners=False)[0, 0]
    return wide, F.interpolate(labels[None, None].float(), shape, mode="nearest")[0, 0].to(labels)


def warp(hu: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Organs elsewhere against each other: smooth random shifts of a patient (X, Y, Z).

    Knots `KNOT_MM` apart move by `WARP_MM` (sd) along each axis, what lies between them linearly:
    the few anatomies that there are must not teach where a kidney lies to the centimetre.
    """
    shape = hu.shape
    knots = [round(n * mm / KNOT_MM) + 2 for n, mm in zip(shape, VOXEL_MM, strict=True)]
    moved = torch.from_numpy(rng.normal(0, WARP_MM, (3, *knots)).astype(np.float32))  # mm
    field = F.interpolate(moved[None], shape, mode="trilinear", align_corners=True)[0]
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    places = [
        2 * (axis + shift / mm) / max(n - 1, 1) - 1
        for axis, shift, mm, n in zip(axes, field, VOXEL_MM, shape, strict=True)
    ]
    grid = torch.stack(places[::-1], -1)[None]  # (1, X, Y, Z, 3), last axis first

    def sampled(x: Tensor, mode: str) -> Tensor:
        return F.grid_sample(
            x[None, None].float(), grid, mode=mode, padding_mode="border", align_corners=True
        )[0, 0]

    return sampled(hu, "bilinear"), sampled(labels, "nearest").to(labels)


def loss(logits: Tensor, labels: Tensor, known: Sequence[frozenset[int]]) -> Tensor:
    """Cross-entropy plus soft Dice; unknown classes count as background.

    logits (B, 8, X, Y, Z), labels (B, X, Y, Z) integer, `known[b]` classes without background.
    """
    merged = logits.clone()
    for b, classes in enumerate(known):
        unknown = [c for c in range(1, CLASSES) if c not in classes]
        if unknown:
            merged[b, 0] = torch.logsumexp(logits[b, [0, *unknown]], 0)
            merged[b, unknown] = -30.0
    entropy = F.cross_entropy(merged, labels.long())
    p = merged.softmax(1)
    hot = F.one_hot(labels.long(), CLASSES).permute(0, 4, 1, 2, 3).float()
    dims = (2, 3, 4)
    overlap = (p * hot).sum(dims)
    dice = (2 * overlap + 10) / (p.sum(dims) + hot.sum(dims) + 10)  # (B, 8)
    return entropy + (1 - dice[:, 1:]).mean()


Piece = tuple[Tensor, Tensor, frozenset[int]]  # scaled HU, labels (X, Y, Z), known classes


class LocaliserTask(Task[Piece, tuple[Tensor, Tensor, list[frozenset[int]]]]):
    """Pieces of `DEPTH` slices of random patients; augmented scanners and phases."""

    def __init__(
        self,
        entries: Sequence[Entry],
        start: Mapping[str, Tensor] | None = None,
        name: str = "localiser",
    ) -> None:
        self.entries, self.name = entries, name
        self.net: Localiser = Localiser()
        if start is not None:
            self.net.load_state_dict(start)
        self.cached: dict[int, tuple[Tensor, Tensor]] = {}

    def groups(self) -> list[Group]:
        return [Group(list(self.net.parameters()), 3e-3)]

    def sample(self, i: int, rng: np.random.Generator) -> Piece:
        index = int(rng.integers(len(self.entries)))
        if index not in self.cached:
            self.cached[index] = load(self.entries[index])
        hu, labels = self.cached[index]
        n = min(DEPTH, hu.shape[2])
        z = int(rng.integers(0, hu.shape[2] - n + 1))
        hu, labels = hu[..., z : z + n].float(), labels[..., z : z + n]
        if rng.random() < 0.5:
            hu, labels = stretch(hu, labels, rng)
        if rng.random() < 0.5:
            hu, labels = warp(hu, labels, rng)
        x = pad_to_stride(scale(augment(hu, labels, rng, generator(rng)))[None])[0]
        y = pad_to_stride(labels[None], value=0)[0]
        return x, y, frozenset(ORGAN_LABEL[o] for o in self.entries[index].known)

    def collate(self, items: list[Piece]) -> tuple[Tensor, Tensor, list[frozenset[int]]]:
        sides = [max(x.shape[d] for x, _, _ in items) for d in range(3)]
        hu = torch.stack([_grow(x, sides, -1.0) for x, _, _ in items])[:, None]  # (B, 1, X, Y, Z)
        labels = torch.stack([_grow(y, sides, 0) for _, y, _ in items])  # (B, X, Y, Z)
        return hu, labels, [known for _, _, known in items]

    def loss(
        self, net: nn.Module, batch: tuple[Tensor, Tensor, list[frozenset[int]]]
    ) -> tuple[Tensor, Parts]:
        hu, labels, known = batch
        return loss(net(hu).float(), labels, known), {}


def train(
    entries: Sequence[Entry],
    work: Path,
    *,
    steps: int,
    seed: int = 1,
    batch: int = 1,
    start: Mapping[str, Tensor] | None = None,
    name: str = "localiser",
    save_every: int = 25,
    device: str = "auto",
    log: Callable[[str], None] = print,
) -> Localiser:
    """Train for `steps` steps with one learning-rate cycle; resumes from `work` when interrupted.

    `start`: weights of an earlier cycle to go on from; `name`: of the checkpoint.
    """
    torch.manual_seed(seed)
    task = LocaliserTask(entries, start, name)
    plan = Plan(steps, batch, seed)
    habits = Habits(device, log_every=save_every, save_every=save_every)
    run(task, work, plan, habits, log=log)
    return task.net


def _grow(x: Tensor, sides: Sequence[int], value: float) -> Tensor:
    pad: list[int] = []
    for n, m in zip(reversed(x.shape), reversed(sides), strict=True):
        pad += [0, m - n]
    return F.pad(x, pad, value=value)
