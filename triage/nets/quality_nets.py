"""The small networks of the quality checks: which way round, and which part of the body."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

REGIONS = ("head", "chest", "abdomen", "pelvis", "thigh")
# Vertebral level as one number, after Yan et al., "Unsupervised body part regression via spatially
# self-ordering convolutional neural networks", ISBI 2018: C7 = 0, T1 = 1, ... T12 = 12,
# L1 = 13, ... L5 = 17, S1 = 18; below, one more each 35 mm.
LEVELS = 25
LEVEL_NAMES = ("C7", *(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)), "S1")


def level_name(level: float) -> str:
    """Name of the vertebra nearest to a level; below S1: the sacrum, and below it."""
    nearest = round(level)
    if nearest < 0:
        return "neck"
    if nearest < len(LEVEL_NAMES):
        return LEVEL_NAMES[nearest]
    return "sacrum" if nearest <= 20 else "below the sacrum"


def _block3(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv3d(inputs, outputs, 3, stride, 1),
        nn.GroupNorm(4, outputs),
        nn.ReLU(inplace=True),
    ]


class OrientationNet(nn.Module):
    """Cubes (B, 3, 44, 44, 44) -> how much each looks like a patient in RAS+: (B,).

    Asked about all 48 turns of one cube, the highest answer tells how the patient lies. The last
    features (B, 128) serve to tell patients from anything else.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": "OrientationNet", "width": width}
        w = width
        layers = [*_block3(3, w, 2), *_block3(w, 2 * w, 2), *_block3(2 * w, 4 * w, 2)]
        self.body = nn.Sequential(*layers, *_block3(4 * w, 4 * w, 1))
        self.head = nn.Linear(8 * w, 1)

    def features(self, x: Tensor) -> Tensor:
        maps = self.body(x)  # (B, 4w, 6, 6, 6)
        return torch.cat([maps.mean((2, 3, 4)), maps.amax((2, 3, 4))], 1)  # (B, 8w)

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.head(self.features(x))  # (B, 1)
        return score[:, 0]


def _block2(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, 1),
        nn.GroupNorm(4, outputs),
        nn.ReLU(inplace=True),
    ]


class RegionNet(nn.Module):
    """Small axial slices (B, 1, 96, 96) -> logits of regions (B, 5) and of levels (B, 25)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": "RegionNet", "width": width}
        w = width
        self.body = nn.Sequential(
            *_block2(1, w, 2),  # 48
            *_block2(w, 2 * w, 2),  # 24
            *_block2(2 * w, 2 * w, 1),
            *_block2(2 * w, 4 * w, 2),  # 12
            *_block2(4 * w, 4 * w, 1),
            *_block2(4 * w, 8 * w, 2),  # 6
        )
        self.head = nn.Sequential(
            nn.Linear(16 * w, 8 * w), nn.ReLU(inplace=True), nn.Linear(8 * w, len(REGIONS) + LEVELS)
        )

    def features(self, x: Tensor) -> Tensor:
        maps = self.body(x)  # (B, 8w, 6, 6)
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)  # (B, 16w)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = self.head(self.features(x))
        return both[:, : len(REGIONS)], both[:, len(REGIONS) :]


def level_of(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Level logits (B, 25) -> expected level (B,) and its standard deviation (B,)."""
    p = logits.softmax(1)
    at = torch.arange(LEVELS, dtype=p.dtype, device=p.device)
    mean = (p * at).sum(1)
    return mean, ((p * at.square()).sum(1) - mean.square()).clamp_min(0).sqrt()
