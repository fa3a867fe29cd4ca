"""bf16 measured on a processor that has none: fp32 networks whose operands are rounded to bf16.

For `scripts/engine-agreement`, not for service. OpenVINO emulates bf16 itself, but takes ten times
as long as fp32 for it. What decides is the same here: batch norm folded into the weights, then
weights and every convolution's input rounded to eight significant bits, products added up in fp32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from triage.inference.engines import Compiled
from triage.inference.engines.openvino_engine import OpenVINOEngine
from triage.nets.mobilenet_v2 import InvertedResidual

MULTIPLY = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.instancenorm._InstanceNorm)
SPLIT = 2.0**16 + 1  # 24 significant bits of fp32 to 8 of bf16


def to_bf16(x: Tensor) -> Tensor:
    """Rounded to bf16's precision by multiplication and subtraction alone (Veltkamp's splitting;
    Dekker, Numer. Math. 1971): no pass of a compiler takes it for a conversion without effect."""
    large = x * SPLIT
    return large - (large - x)


class RoundedEngine(OpenVINOEngine):
    """OpenVINO in fp32 on rounded operands; what is to be exact stays fp32."""

    def __init__(self, *, threads: int) -> None:
        super().__init__(threads=threads, precision="f32")
        self.precision = "bf16"

    def compile(
        self, module: nn.Module, examples: Sequence[Tensor], key: str, *, exact: bool = False
    ) -> Compiled:
        run = module if exact else rounded(module)
        return super().compile(run, examples, f"{key} {exact}")


def rounded(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode that computes as in bf16."""
    out = copy.deepcopy(module).eval()
    _fold(out)
    for part in out.modules():
        if isinstance(part, InvertedResidual):  # its sum is stored
            part.register_forward_hook(lambda _m, _i, y: to_bf16(y))
        elif isinstance(part, MULTIPLY):
            if not isinstance(part, nn.modules.instancenorm._InstanceNorm):
                part.weight.data = part.weight.data.bfloat16().float()
            part.register_forward_pre_hook(_round_inputs)
    return out


def _round_inputs(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (to_bf16(inputs[0]), *inputs[1:])


def _fold(module: nn.Module) -> None:
    """Batch norms that follow a convolution in a Sequential, folded into its weights."""
    for child in module.children():
        _fold(child)
    if not isinstance(module, nn.Sequential):
        return
    names = list(module._modules)
    for first, second in pairwise(names):
        conv, norm = module._modules[first], module._modules[second]
        if isinstance(conv, nn.modules.conv._ConvNd) and isinstance(
            norm, nn.modules.batchnorm._BatchNorm
        ):
            with torch.no_grad():
                module._modules[first] = fuse_conv_bn_eval(conv, norm)
            module._modules[second] = nn.Identity()
