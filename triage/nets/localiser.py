"""The localiser: a small 3D network that finds the organs on a coarse grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from triage.types import ORGAN_LABEL

CLASSES = len(ORGAN_LABEL) + 1  # background first
STRIDE = 8  # input sides are multiples of this
POOL = (3, 3, 2)  # working-grid voxels averaged into one input voxel: 4.5 x 4.5 x 6 mm
LOW_HU, HIGH_HU = -160.0, 340.0


def scale(hu: Tensor) -> Tensor:
    """HU -> [-1, 1], clipped; the same for every network of this project that sees volumes."""
    return ((hu.clamp(LOW_HU, HIGH_HU) - LOW_HU) / (HIGH_HU - LOW_HU)) * 2 - 1


def unet(inputs: int, outputs: int, width: int) -> UNet:
    """Residual U-Net (MONAI UNet; Kerfoot et al., STACOM 2018) that halves the grid at once.

    Its first convolution has stride 2 in plane: two to three times faster on a CPU than a network
    that keeps the full grid, which is what decides here.
    """
    return UNet(
        spatial_dims=3,
        in_channels=inputs,
        out_channels=outputs,
        channels=(width, 2 * width, 4 * width, 8 * width),
        strides=((2, 2, 1), (2, 2, 2), (2, 2, 2)),
        num_res_units=1,
        norm=("INSTANCE", {"affine": True}),
    )


class Localiser(nn.Module):
    """Scaled HU (B, 1, X, Y, Z) on a 4.5 x 4.5 x 6 mm grid -> logits (B, 8, X, Y, Z).

    Classes are background, then those of `ORGAN_LABEL`. `edges`: kidneys are taken to their edges
    after it (`inference.kidneys`); bundles before 0.6 were measured without.
    """

    def __init__(self, width: int = 16, *, edges: bool = True) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": "UNet", "width": width, "edges": edges}
        self.edges = edges
        self.net = unet(1, CLASSES, width)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5 or x.shape[1] != 1:
            raise ValueError(f"Expected (B, 1, X, Y, Z), got {tuple(x.shape)}")
        logits: Tensor = self.net(x)  # (B, 8, X, Y, Z)
        return logits


def localiser_of(data: Mapping[str, object]) -> Localiser:
    """An untrained localiser of the kind that a manifest describes."""
    return Localiser(int(str(data["width"])), edges=bool(data.get("edges", False)))


def pad_to_stride(x: Tensor, stride: int = STRIDE, value: float = -1.0) -> Tensor:
    """Pad the last three sides at their end to multiples of `stride`."""
    sides = x.shape[-3:]
    pad: list[int] = []
    for n in reversed(sides):
        pad += [0, -n % stride]
    return torch.nn.functional.pad(x, pad, value=value)
