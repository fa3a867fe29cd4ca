"""torch as an engine: fp32 on the CPU, the reference; bf16 channels-last on CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from triage.inference.engines import Compiled


class TorchEngine:
    """See `Engine`. `precision` None takes what suits the device."""

    name = "torch"

    def __init__(self, device: torch.device, precision: str | None = None) -> None:
        self.device = device
        self.precision = precision or ("bf16" if device.type == "cuda" else "f32")

    def compile(
        self, module: nn.Module, examples: Sequence[Tensor], key: str, *, exact: bool = False
    ) -> Compiled:
        net = module.eval()
        half = self.precision == "bf16" and not exact
        if self.device.type == "cuda":
            layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(examples[0].ndim)
            net = deepcopy(module).to(self.device)
            if layout is not None:
                net = net.to(memory_format=layout)  # type: ignore[call-overload]

        @torch.inference_mode()
        def run(*inputs: Tensor) -> Tensor:
            # autocast, not a bf16 module: HU and norms keep their fp32, convolutions take bf16
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                out: Tensor = net(*(x.to(self.device) for x in inputs))
            return out.float()

        return run
