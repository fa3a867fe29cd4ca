"""The localiser: a small 3D network that finds the organs on a coarse grid."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets import SegResNet
from torch import Tensor, nn

from triage.types import ORGAN_LABEL

CLASSES = len(ORGAN_LABEL) + 1  # background first
STRIDE = 8  # input sides are multiples of this
POOL = (2, 2, 2)  # working-grid voxels averaged into one input voxel: 3 x 3 x 6 mm

LOW_HU, HIGH_HU = -160.0, 340.0


def scale(hu: Tensor) -> Tensor:
    """HU -> [-1, 1], clipped; the same for every network of this project that sees volumes."""
    return ((hu.clamp(LOW_HU, HIGH_HU) - LOW_HU) / (HIGH_HU - LOW_HU)) * 2 - 1


class Localiser(nn.Module):
    """Residual encoder-decoder (MONAI SegResNet; Myronenko, arXiv:1810.11654).

    Scaled HU (B, 1, X, Y, Z) on a 3 x 3 x 6 mm grid -> logits (B, 8, X, Y, Z), classes of
    `ORGAN_LABEL` after background.
    """

    def __init__(self, filters: int = 8) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": "SegResNet", "filters": filters}
        self.net = SegResNet(
            spatial_dims=3,
            init_filters=filters,
            in_channels=1,
            out_channels=CLASSES,
            blocks_down=(1, 2, 2, 4),
            blocks_up=(1, 1, 1),
            norm=("INSTANCE", {"affine": True}),
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5 or x.shape[1] != 1:
            raise ValueError(f"Expected (B, 1, X, Y, Z), got {tuple(x.shape)}")
        logits: Tensor = self.net(x)  # (B, 8, X, Y, Z)
        return logits


def pad_to_stride(x: Tensor, stride: int = STRIDE, value: float = -1.0) -> Tensor:
    """Pad the last three sides at their end to multiples of `stride`."""
    sides = x.shape[-3:]
    pad: list[int] = []
    for n in reversed(sides):
        pad += [0, -n % stride]
    return torch.nn.functional.pad(x, pad, value=value)
