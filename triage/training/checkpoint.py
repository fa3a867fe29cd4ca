"""Checkpoints that survive a kill: written beside, flushed, then renamed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Stateful(Protocol):
    """Network, optimiser, schedule, average: whatever gives and takes its state."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


class Checkpoint:
    """State of one training: its parts, the number of steps done, and what it was made with.

    `plan`: plain settings that must be the same when the training goes on.
    """

    def __init__(
        self, path: Path, parts: Mapping[str, Stateful], plan: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self.parts = dict(parts)
        self.plan = dict(plan or {})

    def resume(self) -> int:
        """Load what is there; returns the steps already done (0 if there is nothing).

        Raises ValueError if the file is of a training with other settings.
        """
        if not self.path.exists():
            return 0
        state = read(self.path)
        other = {k: (state["plan"].get(k), v) for k, v in self.plan.items()}
        other = {k: pair for k, pair in other.items() if pair[0] != pair[1]}
        if other:
            changed = ", ".join(f"{k} {old} -> {new}" for k, (old, new) in other.items())
            raise ValueError(
                f"{self.path} belongs to a training with other settings ({changed}):"
                " remove it to start anew, or use another folder"
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])

    def save(self, step: int) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        save(self.path, {**state, "plan": self.plan, "step": step})


class Best:
    """The best validated weights so far, and when to stop."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"score": None, "best": None, "bad": 0, "stopped": False}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state

    def judge(self, score: float, net: nn.Module, patience: int | None) -> None:
        if self.state["score"] is None or score > self.state["score"]:
            weights = {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}
            self.state.update(score=score, best=weights, bad=0)
        else:
            self.state["bad"] += 1
            self.state["stopped"] = patience is not None and self.state["bad"] >= patience


class Average(AveragedModel):
    """Exponential average of the weights, stored under the network's own names."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__(net, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.n_averaged += 1  # it starts from the initial weights: the same after a resume

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return self.module.load_state_dict(state_dict, strict, assign)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a file of tensors and plain values as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.part")
    with beside.open("wb") as stream:
        torch.save(dict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def read(path: Path) -> dict[str, Any]:
    """A checkpoint: tensors and plain values, no code of a pickle runs. ValueError if damaged."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: remove it") from error
    return {"plan": {}, **state}


def trained_weights(path: Path) -> dict[str, Tensor]:
    """The weights that a training ended with: mixed with its start (`mix`), else the best
    validated, else averaged, else last ones."""
    state = read(path)
    weights: dict[str, Tensor] = state.get("mixed") or _ended_with(state)
    return weights


def mix(path: Path, start: Mapping[str, Tensor], share: float) -> None:
    """Let a finished training end with `share` of its weights, and with what it began from.

    A second round learns the new and forgets a little of the old; weights between both keep both
    (WiSE-FT: Wortsman et al., CVPR 2022). Counters stay those of the training.
    """
    state = read(path)
    ended = _ended_with(state)
    floats = {k: v for k, v in ended.items() if v.is_floating_point()}
    between = {k: torch.lerp(start[k].to(v), v, share) for k, v in floats.items()}
    save(path, {**state, "mixed": {**ended, **between}})


def _ended_with(state: Mapping[str, Any]) -> dict[str, Tensor]:
    best = state.get("progress", {}).get("best")
    weights: dict[str, Tensor] = best or state.get("average") or state["net"]
    return weights
