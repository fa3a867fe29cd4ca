"""Training of the slice ensembles: the shared trunk once, then each target's balanced members."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from triage.inference.crops import VIEWS, Region, View, cut, judged_slices, region
from triage.nets.mobilenet_v2 import freeze_batch_norm, split
from triage.nets.slice_net import SHARED, JointSliceNet, Tail
from triage.nets.weights import load_imagenet
from triage.training.cache import SPACING, Entry
from triage.training.checkpoint import Checkpoint
from triage.types import ORGAN_LABEL, TARGETS, Organ, Phase, Target

# A slice shows a lesion if at least so many pixels of 1.5 mm are marked in it; a blush is small.
LESION_PIXELS = {t: 4 if t is Target.EXTRAVASATION else 14 for t in Target}


@dataclass(frozen=True)
class Sample:
    """One slice of one patient under one view."""

    entry: int
    target: Target
    view: int
    slice: int
    centre: tuple[float, float]
    label: int


def samples_of(index: int, entry: Entry) -> list[Sample]:
    """Every judged slice of a patient with its label: does it show the target's lesion?"""
    labels = torch.from_numpy(np.array(entry.labels)).permute(0, 3, 2, 1).contiguous()
    hu = torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0).contiguous()
    out = []
    found: dict[tuple[Organ, ...], Region | None] = {}
    for target in TARGETS:
        bit = TARGETS.index(target)
        lesion = (labels[1] & (1 << bit)) > 0  # (X, Y, Z)
        for v, view in enumerate(VIEWS[target]):
            if view.organs not in found:
                found[view.organs] = region(labels[0], hu, view)
            where = found[view.organs]
            if where is None or not set(view.organs) <= entry.known:
                continue
            if target is Target.EXTRAVASATION and entry.phase is Phase.PLAIN:
                continue
            seen = _own_side(lesion, labels[0], view) if bool(lesion.any()) else lesion
            area = F.max_pool1d(seen.float().sum((0, 1))[None, None], 3, 1, 1)[0, 0]
            for z in judged_slices(where):
                shows = int(area[z] >= LESION_PIXELS[target])
                unclear = 0 < area[z] < LESION_PIXELS[target]
                if not unclear:
                    out.append(Sample(index, target, v, z, where.centre, shows))
    return out


def _own_side(lesion: Tensor, organs: Tensor, view: View) -> Tensor:
    """Kidney lesions of the view's own side: on its half of the body, seen from the spine."""
    if view.organs not in ((Organ.KIDNEY_RIGHT,), (Organ.KIDNEY_LEFT,)):
        return lesion
    spine = (organs == ORGAN_LABEL[Organ.SPINE]).nonzero()
    both = (organs == ORGAN_LABEL[Organ.KIDNEY_RIGHT]) | (organs == ORGAN_LABEL[Organ.KIDNEY_LEFT])
    points = spine if len(spine) else both.nonzero()
    middle = int(points[:, 0].float().mean()) if len(points) else organs.shape[0] // 2
    out = lesion.clone()
    if view.organs == (Organ.KIDNEY_RIGHT,):
        out[:middle] = 0
    else:
        out[middle:] = 0
    return out


def picture(entry: Entry, sample: Sample, rng: np.random.Generator | None) -> Tensor:
    """The sample's picture (3, 224, 224), augmented where a generator is given."""
    view = VIEWS[sample.target][sample.view]
    z = sample.slice
    hu = entry.hu
    index = [max(z - 1, 0), z, min(z + 1, hu.shape[0] - 1)]
    planes = torch.from_numpy(np.stack([hu[i] for i in index])).permute(2, 1, 0).float()
    if rng is None:
        return cut(planes, [1], sample.centre, view, SPACING[0])[0]
    planes = planes * rng.uniform(0.92, 1.08) + rng.normal(0, 6)
    if rng.random() < 0.5:
        noise = rng.normal(0, rng.uniform(2, 12), planes.shape).astype(np.float32)
        planes = planes + torch.from_numpy(noise)
    shift = rng.normal(0, 8 / SPACING[0], 2)
    centre = (sample.centre[0] + float(shift[0]), sample.centre[1] + float(shift[1]))
    x = cut(
        planes,
        [1],
        centre,
        view,
        SPACING[0],
        zoom=float(rng.uniform(0.85, 1.18)),
        turn=float(rng.normal(0, 0.12)),
    )[0]
    if rng.random() < 0.15:  # single slices must work too
        x = x[1:2].expand(3, -1, -1).clone()
    for _ in range(int(rng.integers(0, 4))):  # coarse dropout
        h, w = rng.integers(12, 50, 2)
        r, c = rng.integers(0, 224 - h), rng.integers(0, 224 - w)
        x[:, r : r + h, c : c + w] = float(rng.uniform(-1, 1))
    return x


def balanced(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of an epoch with as many positives as negatives (1:1), shuffled."""
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    n = min(len(positive), len(negative))
    if n == 0:
        raise ValueError(f"Expected positives and negatives, got {len(positive)}, {len(negative)}")
    chosen = np.concatenate([rng.permutation(positive)[:n], rng.permutation(negative)[:n]])
    return rng.permutation(chosen)


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
    log: Callable[[str], None] = print,
) -> JointSliceNet:
    """Fine-tune one MobileNetV2 with a head a target; the trunk of all members comes from it."""
    torch.manual_seed(seed)
    net = JointSliceNet()
    if weights is not None:
        load_imagenet(net.net, weights)
    freeze_batch_norm(net)
    for block in list(net.net.features.children())[:frozen_blocks]:
        block.requires_grad_(False)
    groups = [
        {"params": [p for p in net.net.features.parameters() if p.requires_grad]},
        {"params": list(net.net.classifier.parameters())},
    ]
    optimiser = torch.optim.AdamW(groups, lr=1e-4, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(  # pretrained blocks go gently, new heads fast
        optimiser, [2e-4, 4e-3], total_steps=steps, pct_start=0.15
    )
    state = Checkpoint(work / "trunk.pt", net, optimiser, schedule)
    pools = {
        (t, y): [i for i, s in enumerate(samples) if s.target is t and s.label == y]
        for t in TARGETS
        for y in (0, 1)
    }
    start = state.resume()
    began, recent = time.monotonic(), 0.69
    for step in range(start, steps):
        rng = np.random.default_rng((seed, step))
        picks = []
        for i in range(batch):  # targets in turn, labels in turn: 1:1 balanced in every step
            pool = pools[TARGETS[i % len(TARGETS)], (i // len(TARGETS)) % 2]
            picks.append(samples[pool[int(rng.integers(len(pool)))]])
        x = torch.stack([picture(entries[s.entry], s, rng) for s in picks])
        y = torch.tensor([float(s.label) for s in picks])
        head = torch.tensor([TARGETS.index(s.target) for s in picks])
        logits = net(x)[torch.arange(batch), head]
        value = F.binary_cross_entropy_with_logits(logits, y * 0.96 + 0.02)
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        recent = 0.97 * recent + 0.03 * value.item()
        if step % save_every == save_every - 1 or step == steps - 1:
            log(f"trunk {step + 1}/{steps} loss {recent:.3f} {time.monotonic() - began:.0f} s")
            state.save(step + 1)
    return net.eval()


@torch.no_grad()
def trunk_features(
    net: JointSliceNet,
    entries: Sequence[Entry],
    samples: Sequence[Sample],
    *,
    seed: int,
    augment: bool,
    log: Callable[[str], None] = print,
) -> Tensor:
    """Trunk features of samples: float16 (N, 160, 7, 7)."""
    trunk = split(net.net, SHARED)[0].eval()
    out = []
    for i in range(0, len(samples), 32):
        piece = samples[i : i + 32]
        rng = np.random.default_rng((seed, i)) if augment else None
        x = torch.stack([picture(entries[s.entry], s, rng) for s in piece])
        out.append(trunk(x).half())
        if (i // 32) % 20 == 0:
            log(f"features {i}/{len(samples)}")
    return torch.cat(out)


def folds_of(people: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold number of each item; a person is in one fold only."""
    names = sorted(set(people))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[int(k)]: i % folds for i, k in enumerate(order)}
    return np.asarray([fold[p] for p in people])


def train_member(
    start: JointSliceNet,
    features: Tensor,
    labels: NDArray[np.int64],
    *,
    epochs: int,
    seed: int,
    target: Target,
    batch: int = 64,
) -> Tail:
    """One member of one target, on cached trunk features, 1:1 balanced in every epoch."""
    torch.manual_seed(seed)
    tail = Tail()
    source = split(start.net, SHARED)[1]
    tail.features.load_state_dict(source.state_dict())
    row = TARGETS.index(target)
    linear = start.net.classifier[1]
    assert isinstance(linear, torch.nn.Linear)  # noqa: S101 - narrows the type
    tail.classifier.weight.data.copy_(linear.weight.data[row : row + 1])
    tail.classifier.bias.data.copy_(linear.bias.data[row : row + 1])
    freeze_batch_norm(tail)
    tail.train()
    optimiser = torch.optim.AdamW(tail.parameters(), lr=2e-4, weight_decay=1e-2)
    per_epoch = max(1, int(2 * min((labels == 1).sum(), (labels == 0).sum())) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * per_epoch)
    for epoch in range(epochs):
        order = balanced(labels, np.random.default_rng((seed, epoch)))
        for i in range(0, max(len(order) - batch + 1, 1), batch):
            pick = torch.from_numpy(order[i : i + batch])
            x = F.dropout(features[pick].float(), 0.1)
            y = torch.from_numpy(labels[order[i : i + batch]]).float()
            value = F.binary_cross_entropy_with_logits(tail(x), y * 0.96 + 0.02)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
    return tail.eval()
