"""Checkpoints that survive a kill: written beside, then renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn


class Checkpoint:
    """State of one training: network, optimiser, schedule and the number of steps done."""

    def __init__(
        self,
        path: Path,
        net: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self.path = path
        self.parts: dict[str, Any] = {"net": net, "optimiser": optimiser, "schedule": schedule}

    def resume(self) -> int:
        """Load what is there; returns the steps already done (0 if there is nothing)."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])

    def save(self, step: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in self.parts.items()}
        beside = self.path.with_suffix(".tmp")
        torch.save({**state, "step": step}, beside)
        beside.replace(self.path)
