"""The volume net of bundles up to 0.1.0 (kind `UNet`): read and run, no longer trained."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triage.nets.localiser import scale, unet
from triage.nets.volume_net import GRADED, POOL, REGIONS
from triage.types import TARGETS

CONTEXT = 8  # channels beside the lesion map, averaged over regions
TOP = (12, 120, 1200)  # voxels of 27 mm3 over which the lesion map is averaged: 0.3 to 32 ml


class VolumeUNet(nn.Module):
    """HU and organ regions -> study logits, grades, lesion map; see `VolumeNet` for the shapes.

    A U-Net sees everything at 3 mm. The study logit comes from the lesion map (means over its
    strongest 12, 120 and 1,200 voxels) and from context channels averaged over each region.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": "UNet", "width": width}
        self.net = unet(1 + len(REGIONS), len(TARGETS) + CONTEXT, width)
        inputs = len(TOP) + CONTEXT * (len(REGIONS) + 1)
        self.study = nn.ModuleList([nn.Linear(inputs, 1) for _ in TARGETS])
        self.grade = nn.ModuleList([nn.Linear(inputs, 1) for _ in GRADED])

    def forward(
        self, hu: Tensor, regions: Tensor, levels: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> study logits (B, 5), logits of high grade (B, 3), lesion logits (B, 5, X, Y, Z)."""
        return self.heads(self.finest(hu, regions, levels), regions)

    def finest(self, hu: Tensor, regions: Tensor, levels: Tensor | None = None) -> Tensor:
        """The finest features (B, 13, X, Y, Z), before the last convolution."""
        x = torch.cat([scale(F.avg_pool3d(hu, POOL)), regions], 1)  # (B, 5, X, Y, Z)
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
