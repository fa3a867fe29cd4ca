"""Training of the volume net on simulated patients, with lesion masks as auxiliary truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triage.nets.localiser import pad_to_stride, scale
from triage.nets.volume_net import GRADED, POOL, VolumeNet, organ_channels
from triage.training.cache import Entry
from triage.training.checkpoint import Checkpoint
from triage.training.localiser import augment, pool_hu, pool_labels
from triage.types import TARGETS, Phase, Target

DEPTH = 64  # slices of 3 mm in a training piece
AUXILIARY = 1.0  # weight of the segmentation loss
SEEN_ML = 0.35  # a piece is positive if it shows at least so much of a lesion (blush: a tenth)


def load(entry: Entry) -> tuple[Tensor, Tensor, Tensor]:
    """HU float16, organ labels uint8, lesion bits uint8; each (X, Y, Z) at 3 mm."""
    hu = torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0).float()
    labels = torch.from_numpy(np.array(entry.labels)).permute(0, 3, 2, 1).contiguous()
    bits = torch.zeros_like(pool_hu(hu, POOL), dtype=torch.uint8)
    for bit, target in enumerate(TARGETS):
        lesion = (labels[1] & (1 << bit)) > 0
        if bool(lesion.any()):
            share = pool_hu(lesion.float(), POOL)
            limit = 0.25 if target is Target.EXTRAVASATION else 0.5
            bits |= (share >= limit).to(torch.uint8) << bit
    return pool_hu(hu, POOL).half(), pool_labels(labels[0], POOL), bits


def lesion_loss(logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Focal cross-entropy and Dice of the lesion map; (B, 5, X, Y, Z), valid (B, 5)."""
    p = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    focal = ((p - truth).abs() ** 2 * entropy).flatten(2).sum(-1)  # (B, 5)
    focal = focal / (truth.flatten(2).sum(-1) + 500)
    dims = (2, 3, 4)
    dice = 1 - (2 * (p * truth).sum(dims) + 20) / (p.sum(dims) + truth.sum(dims) + 20)
    return ((focal + dice) * valid).sum() / valid.sum().clamp_min(1)


def train(
    entries: Sequence[Entry],
    work: Path,
    *,
    steps: int,
    seed: int = 3,
    save_every: int = 25,
    log: Callable[[str], None] = print,
) -> VolumeNet:
    """Train for `steps` single-piece steps; goes on from `work` after an interruption."""
    torch.manual_seed(seed)
    net = VolumeNet()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 3e-3, total_steps=steps, pct_start=0.15
    )
    state = Checkpoint(work / "volume.pt", net, optimiser, schedule)
    start = state.resume()
    cached: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    began, recent = time.monotonic(), np.array([0.69, 1.0])
    for step in range(start, steps):
        rng = np.random.default_rng((seed, step))
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        x, truth, valid, grades = _piece(entries, cached, rng, generator)
        study, grade, lesion = net(x)
        shown = truth.flatten(2).sum(-1) * 0.027  # ml
        limits = torch.tensor(
            [SEEN_ML / 10 if t is Target.EXTRAVASATION else SEEN_ML for t in TARGETS]
        )
        y = (shown >= limits).float()
        clear = valid * ((shown == 0) | (shown >= limits)).float()
        entropy = F.binary_cross_entropy_with_logits(study, y, reduction="none")
        study_loss = (entropy * clear).sum() / clear.sum().clamp_min(1)
        rows = [TARGETS.index(t) for t in GRADED]
        use = y[:, rows] * valid[:, rows]
        grade_loss = F.binary_cross_entropy_with_logits(grade, grades, reduction="none")
        grade_loss = (grade_loss * use).sum() / use.sum().clamp_min(1)
        map_loss = lesion_loss(lesion, truth, valid)
        value = study_loss + 0.25 * grade_loss + AUXILIARY * map_loss
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        recent = 0.97 * recent + 0.03 * np.array([study_loss.item(), map_loss.item()])
        if step % save_every == save_every - 1 or step == steps - 1:
            seconds = time.monotonic() - began
            parts = f"study {recent[0]:.3f} map {recent[1]:.3f}"
            log(f"volume {step + 1}/{steps} {parts} {seconds:.0f} s")
            state.save(step + 1)
    return net.eval()


def _piece(
    entries: Sequence[Entry],
    cached: dict[int, tuple[Tensor, Tensor, Tensor]],
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    index = int(rng.integers(len(entries)))
    if index not in cached:
        cached[index] = load(entries[index])
    hu, labels, bits = cached[index]
    n = min(DEPTH, hu.shape[2])
    z = int(rng.integers(0, hu.shape[2] - n + 1))
    hu, labels, bits = (v[..., z : z + n] for v in (hu, labels, bits))
    seen = (labels > 0).nonzero()
    if len(seen):  # crop to the organs in plane
        low = (seen.amin(0) - 6).clamp_min(0)
        high = seen.amax(0) + 7
        box = (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])))
        hu, labels, bits = hu[box], labels[box], bits[box]
    image = scale(augment(hu.float(), rng, generator))[None, None]
    regions = organ_channels(labels[None, None])
    x = torch.cat([pad_to_stride(image), pad_to_stride(regions, value=0.0)], 1)
    truth = torch.stack([((bits & (1 << b)) > 0).float() for b in range(len(TARGETS))])[None]
    truth = pad_to_stride(truth, value=0.0)
    entry = entries[index]
    valid = torch.ones(1, len(TARGETS))
    if entry.phase is Phase.PLAIN:
        valid[0, TARGETS.index(Target.EXTRAVASATION)] = 0
    grades = torch.tensor([[float(entry.grade(t) == 2) for t in GRADED]])
    return x, truth, valid, grades
