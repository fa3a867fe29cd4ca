"""Engines: what runs a network. One small interface, chosen by TRIAGE_ENGINE.

    openvino  on the CPU; bf16 where the CPU multiplies in bf16, else fp32
    torch     fp32 on the CPU (the reference), bf16 channels-last on CUDA

An engine compiles a module once and runs it on tensors; nothing else of the program knows which
one answers. Gradients (saliency) are torch's alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

ENGINES = ("auto", "torch", "openvino")

# A compiled network: the module's inputs -> its first output, all on the engine's device.
Compiled = Callable[..., Tensor]


class Engine(Protocol):
    """Runs networks. `precision`: f32 or bf16, that of the convolutions; inputs and outputs are
    float32. `device`: where inputs are wanted and outputs lie."""

    name: str
    precision: str
    device: torch.device

    def compile(
        self, module: nn.Module, examples: Sequence[Tensor], key: str, *, exact: bool = False
    ) -> Compiled:
        """The module (in evaluation mode, one tensor out) ready to run.

        `examples`: one small input each; sides may have any length at run time except that of
        axis 1 (channels). `key` names the network and its weights: two modules that compute
        different things must not share one. `exact`: in fp32, whatever the engine's precision.
        """
        ...


class EngineError(RuntimeError):
    """The engine that was asked for cannot be had."""


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(wanted: int = 0) -> int:
    """Threads to compute with: `wanted`, else OMP_NUM_THREADS, else one a core."""
    if wanted > 0:
        return wanted
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(told) if told.isdigit() and int(told) > 0 else cores()


def choose_engine(
    name: str, device: torch.device, *, threads: int = 0, cache: Path | None = None
) -> Engine:
    """The engine for a device. `auto`: OpenVINO on a CPU where it is installed, else torch.

    `cache`: folder for compiled networks; None keeps them in memory alone. Raises EngineError.
    """
    from triage.inference.engines.torch_engine import TorchEngine

    if name not in ENGINES:
        raise EngineError(f"Expected an engine of {', '.join(ENGINES)}, got {name!r}.")
    if device.type != "cpu":
        if name == "openvino":
            raise EngineError("OpenVINO runs on the CPU here: use --device cpu, or engine torch.")
        return TorchEngine(device)
    torch.set_num_threads(thread_count(threads))
    if name == "torch":
        return TorchEngine(device)
    try:
        from triage.inference.engines.openvino_engine import OpenVINOEngine
    except ImportError as error:
        if name == "openvino":
            raise EngineError(
                f"OpenVINO cannot be loaded ({error}): pip install openvino"
            ) from None
        return TorchEngine(device)
    return OpenVINOEngine(threads=thread_count(threads), cache=cache)
