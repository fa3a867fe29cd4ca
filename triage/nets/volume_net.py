"""The volume net: one 3D network, five heads, on a map of lesions that it draws first.

What decides how soon it learns, measured on simulated patients (see `training.volume`): it is told
how much each voxel differs from its organ's median, and from the blood in the aorta (a blush is as
bright as that in the phase of its scan); it reads the fine grid by one strided convolution and
works at 3 mm and coarser; batch norm, so that a small training piece and a whole abdomen are
treated alike; and the heads read nothing but the lesion map, inside the target's region.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triage.imaging.masks import grown
from triage.nets.localiser import scale
from triage.types import ORGAN_LABEL, TARGETS, Organ, Target

KIND = "LesionMap"  # the name of this network in a manifest
REGIONS: tuple[tuple[Organ, ...], ...] = (
    (Organ.LIVER,),
    (Organ.SPLEEN,),
    (Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT),
    (Organ.BOWEL,),
)
# Whose medians the net is told: the regions', and the blood's.
LEVELS: tuple[tuple[Organ, ...], ...] = (*REGIONS, (Organ.AORTA,))
REGION_OF: dict[Target, int] = {  # extravasation: anywhere near any of them
    Target.LIVER: 0,
    Target.SPLEEN: 1,
    Target.KIDNEY: 2,
    Target.BOWEL: 3,
}
GRADED: tuple[Target, ...] = (Target.KIDNEY, Target.LIVER, Target.SPLEEN)
POOL = (2, 2, 1)  # working-grid voxels of 1.5 x 1.5 x 3 mm in one voxel of the map: 3 x 3 x 3 mm
TOP = (4, 40, 400)  # voxels of 27 mm3 over which the lesion map is averaged: 0.1 to 11 ml
REACH = 4  # voxels around a region that belong to it: haematomas lie beside the organ
SPREAD_HU = 60.0  # difference from a median that counts as 1
NO_LEVEL_HU = 60.0  # median of what is absent
PRIOR = -4.0  # lesion logit to begin with: lesions are rare
NOWHERE = -12.0  # lesion logit outside a target's region


def organ_channels(labels: Tensor) -> Tensor:
    """Organ labels (B, 1, X, Y, Z) of `ORGAN_LABEL` -> float region masks (B, 4, X, Y, Z)."""
    return torch.stack([_any_of(labels[:, 0], region) for region in REGIONS], 1).float()


def _any_of(labels: Tensor, organs: tuple[Organ, ...]) -> Tensor:
    return torch.stack([labels == ORGAN_LABEL[o] for o in organs]).any(0)


def near_regions(regions: Tensor) -> Tensor:
    """Region masks (B, 4, X, Y, Z) -> bool, grown by `REACH`: haematomas lie beside the organ."""
    return grown(regions > 0, (REACH,) * 3)


def near_target(near: Tensor, target: Target) -> Tensor:
    """Where a target is looked for, bool (B, X, Y, Z); `near` from `near_regions`."""
    region = REGION_OF.get(target)
    return reduce(torch.logical_or, near.unbind(1)) if region is None else near[:, region]


def levels_of(hu: Tensor, labels: Tensor) -> Tensor:
    """Median HU of each of `LEVELS` (5,). hu and organ labels (X, Y, Z) at 3 mm."""
    seen = [hu[_any_of(labels, organs)] for organs in LEVELS]
    return torch.stack([v.median() if len(v) else hu.new_tensor(NO_LEVEL_HU) for v in seen])


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """x + f(x), rectified (He et al., CVPR 2016).

    f begins as nothing (Goyal et al., arXiv 1706.02677): a net that has learned may be given one,
    and goes on from what it knows.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _block(channels, channels),
            nn.Conv3d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm3d(channels),
        )
        nn.init.zeros_(self.inner[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(x + self.inner(x))  # (B, channels, X, Y, Z)
        return out


class VolumeNet(nn.Module):
    """HU, organ regions and medians -> study logits, grades, lesion map.

    hu (B, 1, 2X, 2Y, Z) unscaled on the working grid; regions (B, 4, X, Y, Z) at 3 mm, sides
    multiples of 4; levels (B, 5), the median HU of each of `LEVELS` in the whole patient. The study
    logit of a target comes from means over the strongest 4, 40 and 400 voxels of its map near its
    organ. `blood`: whether it is told the difference from the last level; bundles before 0.3 are
    not. `deep`: residual blocks at 3 and 6 mm, which bundles before 0.6 do not have.
    """

    def __init__(self, width: int = 16, *, blood: bool = True, deep: bool = False) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "kind": KIND, "width": width, "blood": blood, "deep": deep
        }  # fmt: skip
        self.blood = blood
        told = len(REGIONS) + 1 + blood
        self.stem = nn.Sequential(
            nn.Conv3d(1, width, (4, 4, 1), stride=POOL, padding=(1, 1, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.told = nn.Conv3d(told, width, 1)
        self.down_1 = nn.Sequential(
            _block(width + told, 2 * width, stride=2), _block(2 * width, 2 * width)
        )
        self.down_2 = nn.Sequential(
            _block(2 * width, 4 * width, stride=2), _block(4 * width, 4 * width)
        )
        self.up_2 = _block(4 * width, 2 * width, kernel=1)
        self.fuse = _block(2 * width, 2 * width)
        self.up_1 = nn.ConvTranspose3d(2 * width, width, 3, stride=2, padding=1, output_padding=1)
        self.middle: nn.Module = Residual(2 * width) if deep else nn.Identity()
        self.fine: nn.Module = Residual(width) if deep else nn.Identity()
        self.map = nn.Conv3d(width, len(TARGETS), 1)
        self.study = nn.ModuleList([nn.Linear(len(TOP), 1) for _ in TARGETS])
        self.grade = nn.ModuleList([nn.Linear(len(TOP), 1) for _ in GRADED])
        nn.init.normal_(self.map.weight, 0, 0.05)
        nn.init.constant_(self.map.bias, PRIOR)  # type: ignore[arg-type]
        for head in self.study:
            if isinstance(head, nn.Linear):
                nn.init.constant_(head.weight, 1 / len(TOP))
                nn.init.constant_(head.bias, 1.0)

    def forward(self, hu: Tensor, regions: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> study logits (B, 5), logits of high grade (B, 3), lesion logits (B, 5, X, Y, Z)."""
        return self.heads(self.finest(hu, regions, levels), regions)

    def finest(self, hu: Tensor, regions: Tensor, levels: Tensor) -> Tensor:
        """The features (B, width, X, Y, Z) that the lesion map is drawn from."""
        sides = tuple(n * p for n, p in zip(regions.shape[2:], POOL, strict=True))
        if hu.shape[2:] != sides or levels.shape[1] != len(LEVELS):
            raise ValueError(
                f"Expected hu (B, 1, 2X, 2Y, Z), regions (B, {len(REGIONS)}, X, Y, Z) and levels"
                f" (B, {len(LEVELS)}), got {tuple(hu.shape)}, {tuple(regions.shape)} and"
                f" {tuple(levels.shape)}"
            )
        coarse = F.avg_pool3d(hu, POOL)  # (B, 1, X, Y, Z)
        differs = ((coarse - levels[:, :, None, None, None]) / SPREAD_HU).clamp(-2, 2)
        own = (differs[:, : len(REGIONS)] * regions).sum(1, keepdim=True)  # (B, 1, X, Y, Z)
        told = torch.cat([regions, own] + [differs[:, -1:]] * self.blood, 1)  # (B, 5 or 6, X, Y, Z)
        fine = self.stem(scale(hu))  # (B, width, X, Y, Z)
        half = self.down_1(torch.cat([fine, told], 1))  # (B, 2 width, X/2, Y/2, Z/2)
        quarter = self.up_2(self.down_2(half))  # (B, 2 width, X/4, Y/4, Z/4)
        half = self.fuse(half + F.interpolate(quarter, scale_factor=2.0, mode="nearest"))
        half = self.middle(half)
        finest: Tensor = self.fine(F.relu(self.up_1(half) + fine + self.told(told)))
        return finest

    def take_up(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights, also of a net that was not told of the blood, or was not deep: what it
        lacks counts for nothing yet."""
        own = self.state_dict()
        wide = {n: v for n, v in own.items() if n.startswith(("middle.", "fine."))}
        for name, given in weights.items():
            missing = own[name].shape[1] - given.shape[1] if given.ndim == 5 and name in own else 0
            wide[name] = F.pad(given, [0] * 7 + [missing]) if missing == 1 else given
        self.load_state_dict(wide)

    def heads(self, features: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features and region masks (B, 4, X, Y, Z) -> the three answers of `forward`."""
        lesion = self.map(features)  # (B, 5, X, Y, Z)
        strongest = self._strongest(lesion, regions)  # (B, 5, 3)
        study = [head(strongest[:, t]) for t, head in enumerate(self.study)]
        grade = [
            head(strongest[:, TARGETS.index(t)]) for t, head in zip(GRADED, self.grade, strict=True)
        ]
        return torch.cat(study, 1), torch.cat(grade, 1), lesion

    def _strongest(self, lesion: Tensor, regions: Tensor) -> Tensor:
        """Means over the strongest voxels of each target's map near its region: (B, 5, 3)."""
        near, rows = near_regions(regions), []
        for t, target in enumerate(TARGETS):
            own = lesion[:, t].masked_fill(~near_target(near, target), NOWHERE).flatten(1)  # (B, N)
            values = own.topk(min(TOP[-1], own.shape[1]), dim=1).values
            rows.append(torch.stack([values[:, :k].mean(1) for k in TOP], 1))
        return torch.stack(rows, 1)
