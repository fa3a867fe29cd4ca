"""The volume net: one 3D network, five heads, with an auxiliary lesion segmentation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from triage.nets.localiser import unet
from triage.types import ORGAN_LABEL, TARGETS, Organ, Target

REGIONS: tuple[tuple[Organ, ...], ...] = (
    (Organ.LIVER,),
    (Organ.SPLEEN,),
    (Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT),
    (Organ.BOWEL,),
)
GRADED: tuple[Target, ...] = (Target.KIDNEY, Target.LIVER, Target.SPLEEN)
POOL = (2, 2, 1)  # working-grid voxels averaged into one input voxel: 3 x 3 x 3 mm
CONTEXT = 8  # channels beside the lesion map, averaged over regions
TOP = (12, 120, 1200)  # voxels of 27 mm3 over which the lesion map is averaged: 0.3 to 32 ml


def organ_channels(labels: Tensor) -> Tensor:
    """Organ labels (B, 1, X, Y, Z) of `ORGAN_LABEL` -> float region masks (B, 4, X, Y, Z)."""
    masks = [
        torch.stack([labels[:, 0] == ORGAN_LABEL[o] for o in region]).any(0) for region in REGIONS
    ]
    return torch.stack(masks, 1).float()


class VolumeNet(nn.Module):
    """Scaled HU and organ regions (B, 5, X, Y, Z) at 3 mm -> study logits, grades, lesion map.

    The study logit of a target comes from its lesion map (means over the strongest 12, 120 and
    1,200 voxels) and from context channels averaged over each region.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": "UNet", "width": width}
        self.net = unet(1 + len(REGIONS), len(TARGETS) + CONTEXT, width)
        inputs = len(TOP) + CONTEXT * (len(REGIONS) + 1)
        self.study = nn.ModuleList([nn.Linear(inputs, 1) for _ in TARGETS])
        self.grade = nn.ModuleList([nn.Linear(inputs, 1) for _ in GRADED])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> study logits (B, 5), logits of high grade (B, 3), lesion logits (B, 5, X, Y, Z)."""
        if x.ndim != 5 or x.shape[1] != 1 + len(REGIONS):
            raise ValueError(f"Expected (B, {1 + len(REGIONS)}, X, Y, Z), got {tuple(x.shape)}")
        return self.heads(self.finest(x), x[:, 1:])

    def finest(self, x: Tensor) -> Tensor:
        """The finest features: (B, 5, X, Y, Z) -> (B, 13, X, Y, Z), before the last convolution."""
        down, skip, up = self.net.model
        features: Tensor = up[0](skip(down(x)))
        return features

    def heads(self, features: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finest features and region masks (B, 4, X, Y, Z) -> the three answers of `forward`."""
        out = self.net.model[-1][1](features)  # (B, 5 + 8, X, Y, Z)
        lesion: Tensor = out[:, : len(TARGETS)]
        pooled = self._region_means(out[:, len(TARGETS) :], regions)  # (B, 8 * 5)
        flat = lesion.flatten(2)  # (B, 5, N)
        strongest = flat.topk(min(TOP[-1], flat.shape[-1]), dim=-1).values
        tops = torch.stack([strongest[..., :k].mean(-1) for k in TOP], -1)  # (B, 5, 3)
        study = [head(torch.cat([tops[:, t], pooled], 1)) for t, head in enumerate(self.study)]
        grade = [
            head(torch.cat([tops[:, TARGETS.index(t)], pooled], 1))
            for t, head in zip(GRADED, self.grade, strict=True)
        ]
        return torch.cat(study, 1), torch.cat(grade, 1), lesion

    def _region_means(self, context: Tensor, regions: Tensor) -> Tensor:
        """Context channels averaged over each region and over everything: (B, 8 * 5)."""
        weights = torch.cat([regions, torch.ones_like(regions[:, :1])], 1)  # (B, 5, X, Y, Z)
        weights = weights / weights.sum((2, 3, 4), keepdim=True).clamp_min(1.0)
        means = torch.einsum("bcxyz,brxyz->brc", context, weights)  # (B, 5, 8)
        return means.flatten(1)
