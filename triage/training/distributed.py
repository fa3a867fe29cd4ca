"""Which process of a training this is: alone, or one of several that `torchrun` started.

    torchrun --standalone --nproc-per-node 4 -m triage train DATA ...

Every process holds the whole network, takes its share of each batch, and applies the mean of all
gradients: several processes take the same steps as one. The networks here have a few million
parameters, so one sum over one flat vector a step does the same as DistributedDataParallel, and
heads that a batch does not reach need no special case. Only a batch norm that is not frozen (the
volume net's) sees its own process's share alone.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

# Its functions take the world's group as a default value at the time of the import. The optimiser
# imports it: after `join`, that default would keep the group, and gloo's threads, alive beyond
# `destroy_process_group` into the end of the interpreter, where one of them can abort the process.
import torch.distributed.nn.functional
from torch import Tensor, nn

PATIENCE = timedelta(days=7)  # the others wait while the first prepares or scores a data set


@dataclass(frozen=True)
class Ranks:
    """This process (`rank` of `world`) and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Only the first process logs, validates and writes."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """The items of a batch that this process takes; every process gets at least one."""
        if batch < self.world:
            raise ValueError(
                f"Expected a batch of at least {self.world}, one item a process, got {batch}"
            )
        return range(self.rank, batch, self.world)

    def sum_gradients(self, net: nn.Module) -> None:
        """Add up the gradients of all processes; a parameter without one counts as zero."""
        if self.world == 1:
            return
        own = [p for p in net.parameters() if p.requires_grad]
        flat = torch.cat([_gradient(p).flatten() for p in own])  # (all parameters,)
        dist.all_reduce(flat)
        for parameter, piece in zip(own, flat.split([p.numel() for p in own]), strict=True):
            parameter.grad = piece.view_as(parameter)

    def same_start(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def agree(self, value: bool) -> bool:
        """The first process's answer, everywhere."""
        if self.world == 1:
            return value
        answer = torch.tensor([float(value)], device=self.device)
        dist.broadcast(answer, 0)
        return bool(answer.item())

    def meet(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes before the others, who find on disk what it left there.

        Where the first one fails, `torchrun` ends the others.
        """
        if not self.first:
            self.meet()
        yield
        if self.first:
            self.meet()


ALONE = Ranks(0, 1, torch.device("cpu"))


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def join(device: str = "auto") -> Ranks:
    """Find out who this process is. `device`: auto, cpu or cuda.

    Raises RuntimeError if CUDA was asked for and there is none.
    """
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise RuntimeError("Expected a CUDA device, found none: use --device cpu or auto.")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(where)
    if world == 1:
        return Ranks(0, 1, where)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return Ranks(dist.get_rank(), dist.get_world_size(), where)
