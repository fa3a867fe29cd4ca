"""Members of the slice ensembles: one network a fold, balanced 1:1, stopped early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from triage.nets.mobilenet_v2 import freeze_batch_norm
from triage.nets.slice_net import Tail
from triage.training.features import Features
from triage.training.folds import Split
from triage.training.loop import Group, Habits, Parts, Plan, Progress, Task, generator, train

SMOOTHING = 0.02  # a label is 0.02 or 0.98: where a lesion begins and ends is not that sharp
DROPOUT = 0.1  # of trunk features
RATE, HEAD_RATE, DECAY = 2e-4, 1e-3, 1e-2
PATIENCE = 3  # epochs
CENTRED = 128  # slices of each label over which the first logits are centred


class Batch(NamedTuple):
    x: Tensor  # (B, C, h, w) trunk features
    truth: Tensor  # (B,) in [0, 1]


class MemberTask(Task[Batch, Batch]):
    """One member of one target on cached trunk features.

    Positives and negatives take turns in every batch, so every batch, and every epoch, is balanced
    1:1. Validation is on the fold that was held out, on plain pictures.
    """

    def __init__(
        self,
        name: str,
        tail: Tail,
        features: Features,
        inside: NDArray[np.int64],
        held: NDArray[np.int64],
        frozen_layers: int = 0,
    ) -> None:
        self.name, self.net = name, freeze_batch_norm(tail)
        self.features, self.truth, self.held = features, features.truth, held
        labels = features.labels
        self.pools = [inside[labels[inside] == y] for y in (0, 1)]
        self.held_labels = labels[held]
        for where, own in (("training", labels[inside]), ("held-out", self.held_labels)):
            if len(set(own.tolist())) != 2:
                raise ValueError(f"{name}: expected both labels among the {where} slices")
        for layer in _layers(tail)[:frozen_layers]:
            layer.requires_grad_(False)
        self._centre(tail)

    @torch.no_grad()
    def _centre(self, tail: Tail) -> None:
        """Begin with a mean logit of 0 over both labels.

        A member of a bundle expects few injuries, and may be far from other pictures. Where every
        logit is far from 0, the first steps push all features one way, and they die (ReLU6).
        """
        rows = [row for pool in self.pools for row in pool[:: max(1, len(pool) // CENTRED)]]
        labels, logits = self.features.labels[rows], self._logits(tail, rows)
        means = [logits[torch.from_numpy(labels == y)].mean() for y in (0, 1)]
        tail.classifier.bias.sub_((means[0] + means[1]) / 2)

    def _logits(self, net: nn.Module, rows: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Logits (len(rows),) of plain pictures, on the CPU."""
        device = next(net.parameters()).device
        parts = []
        for i in range(0, len(rows), 64):
            x = torch.from_numpy(np.array(self.features.values[rows[i : i + 64], 0])).float()
            parts.append(net(x.to(device)).float().cpu())
        return torch.cat(parts)

    def groups(self) -> list[Group]:
        """Pretrained layers go gently, the classifier faster."""
        tail = self.net
        if not isinstance(tail, Tail):
            raise TypeError(f"Expected a Tail, got {type(tail).__name__}")
        body = [p for p in tail.features.parameters() if p.requires_grad]
        head = Group(list(tail.classifier.parameters()), HEAD_RATE, DECAY)
        return [Group(body, RATE, DECAY), head] if body else [head]

    def sample(self, i: int, rng: np.random.Generator) -> Batch:
        pool = self.pools[i % 2]
        row = int(pool[rng.integers(len(pool))])
        copy = int(rng.integers(self.features.values.shape[1]))
        x = torch.from_numpy(np.array(self.features.values[row, copy])).float()
        # Dropped here, by the item's own generator: several processes drop what one would.
        kept = torch.empty_like(x).bernoulli_(1 - DROPOUT, generator=generator(rng))
        return Batch(x * kept / (1 - DROPOUT), torch.tensor(self.truth[row]))

    def collate(self, items: list[Batch]) -> Batch:
        return Batch(*(torch.stack(column) for column in zip(*items, strict=True)))

    def loss(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Parts]:
        y = batch.truth * (1 - 2 * SMOOTHING) + SMOOTHING
        return F.binary_cross_entropy_with_logits(net(batch.x).float(), y), {}

    def validate(self, net: nn.Module) -> dict[str, float]:
        """Loss at equal weight of both labels, and slice AUC; the loss decides."""
        z, y = self._logits(net, self.held), torch.from_numpy(self.held_labels).float()
        each = F.binary_cross_entropy_with_logits(z, y, reduction="none")
        loss = float((each[y == 1].mean() + each[y == 0].mean()) / 2)
        above = (z[y == 1][:, None] - z[y == 0][None]).sign().mean()
        return {"score": -loss, "loss": loss, "auc": float(0.5 + above / 2)}


def _layers(tail: Tail) -> list[nn.Module]:
    """Convolutions with their norms, in order, and the classifier last."""
    found: list[nn.Module] = []
    for module in tail.features.modules():
        if isinstance(module, nn.Conv2d):
            found.append(nn.ModuleList([module]))
        elif isinstance(module, nn.BatchNorm2d) and isinstance(found[-1], nn.ModuleList):
            found[-1].append(module)
    return [*found, tail.classifier]


@dataclass(frozen=True)
class Recipe:
    """How a member is trained. `unfrozen`: layers from the end that learn, None for all."""

    epochs: int = 12
    batch: int = 64
    unfrozen: int | None = None


def train_members(
    name: str,
    features: Features,
    split: Split,
    start: Callable[[int], Tail],
    folder: Path,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "auto",
    log: Callable[[str], None] = print,
    progress: Progress | None = None,
) -> list[Tail]:
    """One member a fold, each on all persons but the held-out fold's and the calibration's.

    `start(k)`: the tail that member k starts from. Each fold has its own checkpoint in `folder`.
    """
    members = []
    for k in range(split.folds):
        inside = np.flatnonzero([split.trains(p, k) for p in features.persons])
        held = np.flatnonzero([split.holds_out(p, k) for p in features.persons])
        torch.manual_seed(seed * 1000 + k)
        tail = start(k)
        count = len(_layers(tail))
        frozen = 0 if recipe.unfrozen is None else max(0, count - recipe.unfrozen)
        task = MemberTask(f"{name}-fold{k}", tail, features, inside, held, frozen)
        slices = 2 * len(task.pools[1]) * max(1, features.values.shape[1] - 1)
        epoch = max(1, round(slices / recipe.batch))
        plan = Plan(
            recipe.epochs * epoch,
            recipe.batch,
            seed * 1000 + k,
            schedule="cosine",
            warmup=0.05,
            validate_every=epoch,
            patience=PATIENCE,
        )
        habits = Habits(device, log_every=epoch)
        train(task, folder / features.key, plan, habits, log=log, progress=progress)
        members.append(tail.cpu())
    return members
