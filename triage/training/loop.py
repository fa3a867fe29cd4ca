"""The one training loop. A task says what is learned; the loop says how.

    task.sample(i, rng) -> one item        every item of every step has a generator of its own,
    task.collate(items) -> batch           so that a resumed or distributed training sees the same
    task.loss(net, batch) -> loss, parts   mean over the batch's items, and figures for the log

The loop seeds, steps, clips, averages, logs, validates, stops early and writes checkpoints. On a
CPU a training that was killed and goes on ends with bit-identical weights. Started by `torchrun`,
each process takes its share of every batch (see `distributed`).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from triage.training.checkpoint import Average, Best, Checkpoint, Stateful
from triage.training.curves import Curve
from triage.training.distributed import Ranks, join

Item = TypeVar("Item")
Batch = TypeVar("Batch")
Parts = dict[str, Tensor | float]
Log = Callable[[str], None]
Progress = Callable[[str, float], None]  # name of the training, share done


@dataclass(frozen=True)
class Group:
    """Parameters with their peak learning rate and weight decay."""

    parameters: Sequence[nn.Parameter]
    lr: float
    weight_decay: float = 1e-4


class Task(ABC, Generic[Item, Batch]):
    """What is learned: a network, its data and its loss."""

    name: str
    net: nn.Module

    @abstractmethod
    def groups(self) -> list[Group]:
        """Parameter groups; parameters in none of them are not trained."""

    @abstractmethod
    def sample(self, i: int, rng: np.random.Generator) -> Item:
        """Item `i` of a batch (0, 1, ...): depends on `i` and `rng` alone."""

    @abstractmethod
    def collate(self, items: list[Item]) -> Batch:
        """Items to one batch; tensors in tuples, lists and dicts travel to the device."""

    @abstractmethod
    def loss(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Parts]:
        """The loss, a mean over the batch's items, and its parts for the log."""

    def validate(self, net: nn.Module) -> dict[str, float]:
        """Figures on held-out data; `score` decides what is best, larger is better."""
        raise NotImplementedError(f"{self.name} has no validation")


@dataclass(frozen=True)
class Plan:
    """How long and how: everything that must stay the same when a training goes on."""

    steps: int
    batch: int = 1
    seed: int = 0
    schedule: str = "onecycle"  # or "cosine"; both rise over the first `warmup` share of steps
    warmup: float = 0.15
    clip: float = 1.0  # largest norm of the gradient
    average: float | None = None  # decay of the exponential average of the weights
    validate_every: int | None = None  # steps
    patience: int | None = None  # validations without improvement, then it stops


@dataclass(frozen=True)
class Habits:
    """What changes nothing about the result."""

    device: str = "auto"
    log_every: int = 25  # steps
    save_every: int | None = None  # steps
    save_seconds: float = 60.0
    workers: int = 0  # threads that prepare the next batches; 0: none, in turn
    alone: bool = False  # this process alone trains, whatever `torchrun` started beside it


def train(
    task: Task[Any, Any],
    folder: Path,
    plan: Plan,
    habits: Habits | None = None,
    *,
    log: Log = print,
    progress: Progress | None = None,
) -> nn.Module:
    """Train `task.net`; goes on from `folder` after an interruption. Returns it ready to use.

    The network comes back on the CPU, in eval mode, with the best validated weights where there
    is a validation, else the averaged, else the last ones. `folder` gets `<name>.pt`,
    `<name>.jsonl` and `<name>.png`. Raises FloatingPointError when the loss is not finite.
    """
    habits = habits or Habits()
    ranks = join(habits.device)
    if habits.alone:
        ranks = Ranks(0, 1, ranks.device)
    if not ranks.first:
        log, progress = _silent, None
    net = task.net.to(ranks.device)
    groups = task.groups()
    optimiser = torch.optim.AdamW(
        [{"params": list(g.parameters), "lr": g.lr, "weight_decay": g.weight_decay} for g in groups]
    )
    schedule = _schedule(optimiser, plan, [g.lr for g in groups])
    average = Average(net, plan.average) if plan.average is not None else None
    best = Best()
    parts: dict[str, Stateful] = {"net": net, "optimiser": optimiser, "schedule": schedule}
    parts |= {"progress": best} | ({"average": average} if average else {})
    state = Checkpoint(folder / f"{task.name}.pt", parts, asdict(plan))
    start = state.resume()
    ranks.same_start(net.state_dict().values())
    curve = Curve(folder, task.name, start) if ranks.first else None
    clock = _Clock(task.name, start, plan.steps)
    net.train()
    for step, batch in _batches(task, plan, habits, ranks, start, best):
        torch.manual_seed(_seed(plan.seed, step, ranks.rank))  # dropout
        value, figures = _step(task, batch, optimiser, plan, ranks)
        schedule.step()
        if average is not None:
            average.update_parameters(net)
        done = step + 1
        clock.count(value, figures)
        last = done == plan.steps
        if last or done % habits.log_every == 0:
            clock.tell(done, float(schedule.get_last_lr()[-1]), log, curve)
            if progress is not None:
                progress(task.name, done / plan.steps)
        if plan.validate_every is not None and (last or done % plan.validate_every == 0):
            _validate(task, average.module if average else net, plan, best, ranks, done, log, curve)
            net.train()
        every = habits.save_every is not None and done % habits.save_every == 0
        if ranks.first and (last or every or best.state["stopped"] or clock.due(habits)):
            state.save(done)
    ranks.meet()
    if curve is not None:
        curve.close()
    final = best.state["best"] or (average.state_dict() if average else None)
    if final is not None and ranks.first:
        net.load_state_dict(final)
    ranks.same_start(net.state_dict().values())
    return net.eval().cpu()


def _step(
    task: Task[Any, Any], batch: Any, optimiser: torch.optim.Optimizer, plan: Plan, ranks: Ranks
) -> tuple[Tensor, Parts]:
    """One step of the optimiser; returns this process's loss and its parts."""
    with _autocast(ranks.device):
        value, figures = task.loss(task.net, batch)
    # (this share's mean) x (its part of the batch), summed over processes: the batch's mean
    optimiser.zero_grad()
    (value * (len(ranks.share(plan.batch)) / plan.batch)).backward()
    ranks.sum_gradients(task.net)
    torch.nn.utils.clip_grad_norm_(task.net.parameters(), plan.clip)
    optimiser.step()
    return value.detach(), figures


def _batches(
    task: Task[Any, Any], plan: Plan, habits: Habits, ranks: Ranks, start: int, best: Best
) -> Iterator[tuple[int, Any]]:
    """(step, batch on the device) from `start` on, until the end or an early stop."""
    share = ranks.share(plan.batch)

    def make(step: int) -> Any:
        items = [task.sample(i, np.random.default_rng((plan.seed, step, i))) for i in share]
        return task.collate(items)

    with ThreadPoolExecutor(habits.workers) if habits.workers else nullcontext() as pool:
        ahead: dict[int, Future[Any]] = {}
        for step in range(start, plan.steps):
            if best.state["stopped"]:
                return
            if pool is None:
                yield step, _to(make(step), ranks.device)
                continue
            for k in range(step, min(step + 2 * habits.workers, plan.steps)):
                if k not in ahead:
                    ahead[k] = pool.submit(make, k)
            yield step, _to(ahead.pop(step).result(), ranks.device)


def _validate(
    task: Task[Any, Any],
    net: nn.Module,
    plan: Plan,
    best: Best,
    ranks: Ranks,
    step: int,
    log: Log,
    curve: Curve | None,
) -> None:
    """Judge the network on held-out data; all processes learn whether it is time to stop."""
    if ranks.first:
        net.eval()
        with torch.no_grad(), _autocast(ranks.device):
            figures = task.validate(net)
        best.judge(figures["score"], net, plan.patience)
        text = " ".join(f"{k} {v:.3f}" for k, v in figures.items())
        log(f"{task.name} {step}/{plan.steps} validation {text}")
        if best.state["stopped"]:
            log(f"{task.name} stops early: no gain in {best.state['bad']} validations")
        if curve is not None:
            curve.add(step, {f"validation {k}": v for k, v in figures.items()})
    best.state["stopped"] = ranks.agree(bool(best.state["stopped"]))


def _schedule(
    optimiser: torch.optim.Optimizer, plan: Plan, rates: Sequence[float]
) -> torch.optim.lr_scheduler.LRScheduler:
    if plan.schedule == "onecycle":  # Smith & Topin, arXiv:1708.07120
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser, list(rates), total_steps=plan.steps, pct_start=plan.warmup
        )
    if plan.schedule != "cosine":
        raise ValueError(f"Expected schedule onecycle or cosine, got {plan.schedule!r}")
    rise = max(1, round(plan.warmup * plan.steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + float(np.cos(np.pi * (step - rise) / max(1, plan.steps - rise))))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


class _Clock:
    """Running means of the loss and its parts, seconds a step, and the time left."""

    def __init__(self, name: str, start: int, steps: int) -> None:
        self.name, self.start, self.steps = name, start, steps
        self.began = self.saved = time.monotonic()
        self.sums: dict[str, list[float]] = {}

    def count(self, value: Tensor, figures: Parts) -> None:
        total = float(value)
        if not np.isfinite(total):
            raise FloatingPointError(f"{self.name}: the loss is {total}; lower the learning rate")
        for key, figure in {"loss": total, **figures}.items():
            self.sums.setdefault(key, []).append(float(figure))

    def tell(self, done: int, lr: float, log: Log, curve: Curve | None) -> None:
        """One line: means since the last one, pace, time left."""
        seen = {k: [x for x in v if np.isfinite(x)] for k, v in self.sums.items()}
        means = {k: float(np.mean(v)) for k, v in seen.items() if v}
        self.sums = {}
        seconds = time.monotonic() - self.began
        pace = seconds / max(1, done - self.start)
        text = " ".join(f"{k} {v:.3f}" for k, v in means.items())
        left = round(pace * (self.steps - done))
        log(f"{self.name} {done}/{self.steps} {text} {pace:.2f} s/step, {left} s left")
        if curve is not None:
            curve.add(done, {**means, "lr": lr, "seconds": seconds})

    def due(self, habits: Habits) -> bool:
        """Time for a checkpoint."""
        if time.monotonic() - self.saved < habits.save_seconds:
            return False
        self.saved = time.monotonic()
        return True


def generator(rng: np.random.Generator) -> torch.Generator:
    """A torch generator that follows a numpy one."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.default_rng((seed, step, rank, 1)).integers(2**62))


def _autocast(device: torch.device) -> Any:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _to(batch: Any, device: torch.device) -> Any:
    """Tensors of a batch to the device; images (B, C, H, W) as channels-last on CUDA."""
    if isinstance(batch, Tensor):
        if device.type == "cuda" and batch.ndim == 4:
            return batch.to(device, memory_format=torch.channels_last, non_blocking=True)
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {k: _to(v, device) for k, v in batch.items()}
    if isinstance(batch, (tuple, list)):
        moved = [_to(v, device) for v in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


def _silent(text: str) -> None:
    """Other processes say nothing."""
