"""Does an attribution point at the injury? Measures of one map against the mask of the lesion.

Everything lies on the working grid, (X, Y, Z). What is asked of a map:

- pointing game (Zhang et al., IJCV 2018): its largest voxel lies in the lesion, grown by 10 mm;
- the share of its positive attribution that lies there, beside the share by chance: that of the
  grown lesion in the surroundings of the target's organs, where attribution can lie at all;
- deletion (Samek et al., TNNLS 2017): without the voxels it names the score falls;
- randomised weights (Adebayo et al., NeurIPS 2018) give another map: structural similarity (Wang
  et al., TIP 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from skimage.metrics import structural_similarity
from torch import Tensor

from triage.imaging.masks import box_of
from triage.inference.score import organ_mask
from triage.types import TARGET_ORGANS, Anatomy, Target

GROWN_MM = 10.0  # around a lesion: what still counts as pointing at it
TOP_SHARE = 0.10  # of the voxels around the organs that are taken away
PATCH = 7  # voxels of a side that structural similarity compares at once


def grown_lesion(lesion: Tensor, spacing: Sequence[float], mm: float = GROWN_MM) -> Tensor:
    """True within `mm` of a bool mask. `spacing` in mm."""
    out = torch.zeros_like(lesion)
    box = box_of(lesion, [ceil(mm / float(s)) for s in spacing])
    if box is not None:
        away = distance_transform_edt(~lesion[box].numpy(), sampling=[float(s) for s in spacing])
        out[box] = torch.from_numpy(away <= mm)
    return out


def points_at(field: Tensor, lesion: Tensor) -> bool:
    """Whether the map's largest voxel is positive and lies in the mask."""
    place = int(field.argmax())
    return bool(field.flatten()[place] > 0) and bool(lesion.flatten()[place])


def share_inside(field: Tensor, lesion: Tensor) -> float:
    """Share of the positive attribution that lies in the mask; 0 where there is none."""
    positive = field.clamp_min(0)
    total = float(positive.sum())
    return float(positive[lesion].sum()) / total if total > 0 else 0.0


def chance(lesion: Tensor, near: Tensor) -> float:
    """Share of the mask in the surroundings: what a random voxel or an even map would get."""
    return float((lesion & near).sum()) / max(int(near.sum()), 1)


def centre_hits(anatomy: Anatomy, target: Target, lesion: Tensor) -> float:
    """How often the centre of one of the target's organs lies in the mask, organs drawn alike."""
    hits = []
    for organ in TARGET_ORGANS[target]:
        where = organ_mask(anatomy, (organ,)).nonzero()
        if len(where):
            centre = where.float().mean(0).round().long().tolist()
            hits.append(float(lesion[tuple(centre)]))
    return float(np.mean(hits)) if hits else 0.0


def similarity(one: Tensor, other: Tensor, near: Tensor, span: float = 2.0) -> float:
    """Mean structural similarity of two maps, over the surroundings; `span` of their values.

    What lies beyond the surroundings is 0 in both and counts for nothing.
    """
    box = box_of(near, (PATCH,) * 3)
    if box is None:
        raise ValueError("Expected surroundings that are not empty")
    _, places = structural_similarity(
        one[box].numpy(), other[box].numpy(), win_size=PATCH, data_range=span, full=True
    )
    return float(places[near[box].numpy()].mean())


def without(hu: Tensor, places: Tensor, organs: Tensor) -> Tensor:
    """HU (X, Y, Z) with the organs' mean in `places`."""
    out = hu.clone()
    out[places] = hu[organs].mean()
    return out


def strongest(field: Tensor, near: Tensor, share: float = TOP_SHARE) -> Tensor:
    """Mask of the share of the surroundings that speaks most for the target."""
    inside = field[near]
    keep = inside.topk(round(share * len(inside))).indices
    chosen = torch.zeros(len(inside), dtype=torch.bool)
    chosen[keep] = True
    out = torch.zeros_like(near)
    out[near] = chosen
    return out


def random_places(near: Tensor, count: int, seed: int) -> Tensor:
    """Mask of as many random voxels of the surroundings."""
    generator = torch.Generator().manual_seed(seed)
    where = near.nonzero()
    chosen = where[torch.randperm(len(where), generator=generator)[:count]]
    out = torch.zeros_like(near)
    out[chosen[:, 0], chosen[:, 1], chosen[:, 2]] = True
    return out
