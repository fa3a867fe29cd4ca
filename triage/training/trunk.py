"""Training of the trunk that all slice ensembles share: one MobileNetV2 with a head a target.

Where masks are known, the network is also told where lesions and organs lie in each picture: the
labels of slices alone teach it several times as slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triage.nets.mobilenet_v2 import freeze_batch_norm
from triage.nets.slice_net import ORGAN_CLASSES, SIZE, JointSliceNet
from triage.nets.weights import load_imagenet
from triage.training.cache import Entry
from triage.training.checkpoint import trained_weights
from triage.training.loop import Group, Habits, Parts, Plan, Task
from triage.training.loop import train as run
from triage.training.losses import focal
from triage.training.slices import WHOLE_BODY, Sample, pictured, truth_maps
from triage.types import ORGAN_LABEL, TARGETS, Target

SMOOTHING = 0.02  # a label is 0.02 or 0.98: where a lesion begins and ends is not that sharp
CELL = 16  # pixels in a cell of the finer maps
BODY_SHARE = 0.35  # pictures of the whole body: single images are seen like that
ANYWHERE = 0.35  # negatives from outside the organ's range, where single images may lie
OTHERS = 0.25  # weight of the targets that a picture was not chosen for
LESIONS, FINE_LESIONS, ORGANS = 0.5, 0.5, 0.25  # weights of the maps
RARE = 10.0  # cells added to the lesion cells of a batch, where it has few
# Turns of a second round: the targets that a first round leaves behind come twice.
HARD_TWICE = (*TARGETS, Target.BOWEL, Target.EXTRAVASATION)


class Slice(NamedTuple):
    """One picture and its truth; stacked in a batch."""

    x: Tensor  # (3, 224, 224)
    truth: Tensor  # of its own target, in [0, 1]
    head: Tensor  # its own target
    lesions: Tensor  # (5, 14, 14) in {0, 1}
    judged: Tensor  # (5,) 1 where the lesion map of a target is known
    organs: Tensor  # (8, 14, 14) shares
    known: Tensor  # (8,) 1 where a class of organs is known


class TrunkTask(Task[Slice, Slice]):
    """Targets in turn, labels in turn: 1:1 balanced in every batch of whole turns, both labels.

    `weights`: ImageNet weights to start from; `start`: those of a trunk to go on from.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        samples: Sequence[Sample],
        weights: Path | None = None,
        frozen_blocks: int = 4,
        pooling: str = "lse",
        *,
        start: Path | None = None,
        turns: Sequence[Target] = TARGETS,
        name: str = "trunk",
    ) -> None:
        self.entries, self.samples, self.turns, self.name = entries, samples, turns, name
        self.net: JointSliceNet = JointSliceNet(pooling=pooling)
        if start is not None:
            self.net.load_state_dict(trained_weights(start))
        elif weights is not None:
            load_imagenet(self.net.net, weights)
        freeze_batch_norm(self.net)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
        heads = [
            p
            for head in (self.net.net.classifier, self.net.fine, self.net.organs)
            for p in head.parameters()
        ]
        return [Group(blocks, 3e-4, 1e-3), Group(heads, 4e-3, 1e-3)]

    def sample(self, i: int, rng: np.random.Generator) -> Slice:
        pool = self.pools[self.turns[i % len(self.turns)], (i // len(self.turns)) % 2]
        s = self.samples[pool[int(rng.integers(len(pool)))]]
        entry = self.entries[s.entry]
        if s.label == 0 and entry.is_volume and entry.masks_known and rng.random() < ANYWHERE:
            s = anywhere(entry, s, rng)
        x, where = pictured(entry, s, rng, SIZE, BODY_SHARE)
        head, truth = TARGETS.index(s.target), torch.tensor(float(s.truth))
        cells = SIZE // CELL
        if not (entry.is_volume and entry.masks_known):
            none = torch.zeros(len(TARGETS), cells, cells), torch.zeros(len(TARGETS))
            no_organs = torch.zeros(ORGAN_CLASSES, cells, cells), torch.zeros(ORGAN_CLASSES)
            return Slice(x, truth, torch.tensor(head), *none, *no_organs)
        lesions, organs = truth_maps(entry, s.slice, where, SIZE, CELL)
        judged = torch.tensor([float(entry.labelled(t)) for t in TARGETS])
        known = torch.zeros(ORGAN_CLASSES)
        known[[ORGAN_LABEL[o] for o in entry.known]] = 1.0
        return Slice(x, truth, torch.tensor(head), lesions, judged, organs, known)

    def collate(self, items: list[Slice]) -> Slice:
        return Slice(*(torch.stack(column) for column in zip(*items, strict=True)))

    def loss(self, net: nn.Module, batch: Slice) -> tuple[Tensor, Parts]:
        if not isinstance(net, JointSliceNet):
            raise TypeError(f"Expected a JointSliceNet, got {type(net).__name__}")
        said = net.everything(batch.x.contiguous(memory_format=torch.channels_last))
        logits, own = said.logits.float(), batch.head[:, None]  # (B, 5), (B, 1)
        y = batch.truth * (1 - 2 * SMOOTHING) + SMOOTHING
        slice_loss = F.binary_cross_entropy_with_logits(logits.gather(1, own)[:, 0], y)
        if not bool(batch.judged.any()):
            return slice_loss, {"slice": slice_loss.detach()}
        shown = batch.lesions.flatten(2).amax(2)  # (B, 5)
        others = batch.judged.scatter(1, own, 0.0)
        each = F.binary_cross_entropy_with_logits(logits, shown, reduction="none")
        others_loss = (each * others).sum() / others.sum().clamp_min(1)
        coarse = F.max_pool2d(batch.lesions, 2, ceil_mode=True)  # (B, 5, 7, 7)
        maps = lesion_loss(said.maps.float(), coarse, batch.judged)
        fine = lesion_loss(said.fine.float(), batch.lesions, batch.judged)
        organs = organ_loss(said.organs.float(), batch.organs, batch.known)
        value = slice_loss + OTHERS * others_loss + LESIONS * maps + FINE_LESIONS * fine
        parts = {"slice": slice_loss, "map": maps, "fine": fine, "organs": organs}
        return value + ORGANS * organs, {k: v.detach() for k, v in parts.items()}


def anywhere(entry: Entry, sample: Sample, rng: np.random.Generator) -> Sample:
    """Another slice of the scan, whole body, as long as it shows no lesion of the target.

    Single images come from the chest and the thighs, too; no organ's own range holds those.
    """
    z = int(rng.integers(entry.hu.shape[0]))
    shown = entry.labels[1, max(z - 1, 0) : z + 2] & (1 << TARGETS.index(sample.target))
    if shown.any():
        return sample
    return replace(sample, slice=z, view=WHOLE_BODY)


def lesion_loss(logits: Tensor, truth: Tensor, judged: Tensor) -> Tensor:
    """Focal loss a lesion cell. (B, 5, h, w), same, (B, 5)."""
    each = focal(logits, truth) * judged[:, :, None, None]
    count = (truth * judged[:, :, None, None]).sum((0, 2, 3))  # (5,)
    return (each.sum((0, 2, 3)) / (count + RARE)).mean()


def organ_loss(logits: Tensor, shares: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of the known organ classes. (B, 8, h, w), same, (B, 8)."""
    each = F.binary_cross_entropy_with_logits(logits, shares, reduction="none").mean((2, 3))
    return (each * known).sum() / known.sum().clamp_min(1)


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
    start: Path | None = None,
    turns: Sequence[Target] = TARGETS,
    name: str = "trunk",
    save_every: int = 25,
    device: str = "auto",
    log: Callable[[str], None] = print,
) -> JointSliceNet:
    """Fine-tune one MobileNetV2 with a head a target; the trunk of all members comes from it.

    `weights`, `start`, `turns`, `name`: see `TrunkTask`. Resumes from `work` when interrupted.
    """
    torch.manual_seed(seed)
    task = TrunkTask(entries, samples, weights, frozen_blocks, start=start, turns=turns, name=name)
    plan = Plan(steps, batch, seed, clip=2.0)
    run(task, work, plan, Habits(device, log_every=save_every, save_every=save_every), log=log)
    return task.net
