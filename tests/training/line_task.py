"""A task for the loop's tests; run by `torchrun` with a folder, it trains there."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triage.training.loop import Group, Habits, Parts, Plan, Task, train

Item = tuple[Tensor, Tensor]


class Line(Task[Item, Item]):
    """y = sum(x), learned by a small network with dropout."""

    name = "line"

    def __init__(self, validation: list[float] | None = None, dropout: float = 0.2) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1))
        self.validation = iter(validation or [])

    def groups(self) -> list[Group]:
        return [Group(list(self.net.parameters()), 0.02)]

    def sample(self, i: int, rng: np.random.Generator) -> Item:
        x = torch.from_numpy(rng.normal(size=4).astype(np.float32))
        return x, x.sum(0, keepdim=True)

    def collate(self, items: list[Item]) -> Item:
        return torch.stack([x for x, _ in items]), torch.stack([y for _, y in items])

    def loss(self, net: nn.Module, batch: Item) -> tuple[Tensor, Parts]:
        value = F.mse_loss(net(batch[0]), batch[1])
        return value, {"mse": value.detach()}

    def validate(self, net: nn.Module) -> dict[str, float]:
        return {"score": next(self.validation)}


SHARED_PLAN = Plan(steps=12, batch=5, average=0.8, validate_every=4, patience=1)


def train_shared(folder: Path) -> nn.Module:
    """What one process and two processes do alike: no dropout, an uneven batch, an early stop."""
    habits = Habits(device="cpu", save_seconds=1e9)
    return train(Line([0.5, 0.4], dropout=0), folder, SHARED_PLAN, habits)


def _tell_threads() -> None:
    tasks = Path("/proc/self/task").iterdir()
    names = {(task / "comm").read_text().strip() for task in tasks}
    left = sorted(name for name in names if "gloo" in name)
    print(f"process {os.environ['RANK']} left threads {left}", flush=True)


if __name__ == "__main__":
    atexit.register(_tell_threads)  # before the group's own end is registered: runs after it
    train_shared(Path(sys.argv[1]))
