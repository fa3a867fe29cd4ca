"""Training of the trunk that all slice ensembles share: one MobileNetV2 with a head a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triage.nets.mobilenet_v2 import freeze_batch_norm
from triage.nets.slice_net import JointSliceNet
from triage.nets.weights import load_imagenet
from triage.training.cache import Entry
from triage.training.loop import Group, Habits, Parts, Plan, Task
from triage.training.loop import train as run
from triage.training.slices import Sample, picture
from triage.types import TARGETS

SMOOTHING = 0.02  # a label is 0.02 or 0.98: where a lesion begins and ends is not that sharp


class Slice(NamedTuple):
    """One picture, its truth in [0, 1], and the head that answers for it; stacked in a batch."""

    x: Tensor  # (3, 224, 224)
    truth: Tensor
    head: Tensor


class TrunkTask(Task[Slice, Slice]):
    """Targets in turn, labels in turn: 1:1 balanced in every batch of a multiple of ten."""

    name = "trunk"

    def __init__(
        self,
        entries: Sequence[Entry],
        samples: Sequence[Sample],
        weights: Path | None = None,
        frozen_blocks: int = 4,
    ) -> None:
        self.entries, self.samples = entries, samples
        self.net: JointSliceNet = JointSliceNet()
        if weights is not None:
            load_imagenet(self.net.net, weights)
        freeze_batch_norm(self.net)
        for block in list(self.net.net.features.children())[:frozen_blocks]:
            block.requires_grad_(False)
        self.pools = {
            (t, y): [i for i, s in enumerate(samples) if s.target is t and s.label == y]
            for t in TARGETS
            for y in (0, 1)
        }
        if empty := [f"{t} {y}" for (t, y), pool in self.pools.items() if not pool]:
            raise ValueError(f"Expected slices of every target and label, got none of {empty}")

    def groups(self) -> list[Group]:
        """Pretrained blocks go gently, new heads fast."""
        blocks = [p for p in self.net.net.features.parameters() if p.requires_grad]
        heads = list(self.net.net.classifier.parameters())
        return [Group(blocks, 2e-4, 1e-3), Group(heads, 4e-3, 1e-3)]

    def sample(self, i: int, rng: np.random.Generator) -> Slice:
        pool = self.pools[TARGETS[i % len(TARGETS)], (i // len(TARGETS)) % 2]
        s = self.samples[pool[int(rng.integers(len(pool)))]]
        x = picture(self.entries[s.entry], s, rng)
        return Slice(x, torch.tensor(float(s.truth)), torch.tensor(TARGETS.index(s.target)))

    def collate(self, items: list[Slice]) -> Slice:
        return Slice(*(torch.stack(column) for column in zip(*items, strict=True)))

    def loss(self, net: nn.Module, batch: Slice) -> tuple[Tensor, Parts]:
        logits = net(batch.x).float()  # (B, 5)
        own = logits.gather(1, batch.head[:, None])[:, 0]  # (B,)
        y = batch.truth * (1 - 2 * SMOOTHING) + SMOOTHING
        return F.binary_cross_entropy_with_logits(own, y), {}


def train_trunk(
    entries: Sequence[Entry],
    samples: Sequence[Sample],
    weights: Path | None,
    work: Path,
    *,
    steps: int,
    batch: int = 20,
    frozen_blocks: int = 4,
    seed: int = 2,
    save_every: int = 25,
    device: str = "auto",
    log: Callable[[str], None] = print,
) -> JointSliceNet:
    """Fine-tune one MobileNetV2 with a head a target; the trunk of all members comes from it.

    `weights`: ImageNet weights to start from. Resumes from `work` when interrupted.
    """
    torch.manual_seed(seed)
    task = TrunkTask(entries, samples, weights, frozen_blocks)
    plan = Plan(steps, batch, seed, clip=2.0)
    run(task, work, plan, Habits(device, log_every=save_every, save_every=save_every), log=log)
    return task.net
