"""Slice crops: from the working grid to the 224 x 224 pictures that the slice ensembles see.

Each target has a fixed field of view in mm around the middle of its organ, so that a millimetre
has the same size in every patient. Pictures lie as a radiologist sees them: front at the top, the
patient's right on the left. Three channels: the slice below, the slice, the slice above, in one
fixed HU window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from triage.imaging.masks import box_of
from triage.nets.slice_net import SIZE
from triage.types import ORGAN_LABEL, Organ, Target

LOW_HU, HIGH_HU = -110.0, 270.0  # soft tissue from fat to bright organs; vessels may saturate
WIDE_HU = 420.0  # for the target whose sign is brighter than organs
STEP = 2  # every second working-grid slice (6 mm) is judged; its neighbours are its channels


@dataclass(frozen=True)
class View:
    """A field of view: side length in mm, organs it is centred on (none: the body)."""

    field_mm: float
    organs: tuple[Organ, ...]
    high_hu: float = HIGH_HU


# The kidneys are looked at one by one: a finding then has a side.
VIEWS: dict[Target, tuple[View, ...]] = {
    Target.LIVER: (View(270, (Organ.LIVER,)),),
    Target.SPLEEN: (View(180, (Organ.SPLEEN,)),),
    Target.KIDNEY: (View(150, (Organ.KIDNEY_RIGHT,)), View(150, (Organ.KIDNEY_LEFT,))),
    Target.BOWEL: (View(350, ()),),
    Target.EXTRAVASATION: (View(350, (), WIDE_HU),),
}


@dataclass(frozen=True)
class Region:
    """Where a view looks in one patient: centre (x, y) in voxels, slice range [low, high)."""

    centre: tuple[float, float]
    low: int
    high: int


def region(labels: Tensor, hu: Tensor, view: View) -> Region | None:
    """The region of a view; None if its organ is absent. labels, hu: (X, Y, Z), same grid."""
    if view.organs:
        mask = _any_of(labels, view.organs)
        ends = mask
    else:
        mask = hu > -300
        solid = (Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT, Organ.BOWEL)
        ends = _any_of(labels, solid)
    box = box_of(mask)
    judged = box if ends is mask else box_of(ends)
    if box is None or judged is None:
        return None
    x, y, _ = ((s.start + s.stop - 1) / 2 for s in box)
    return Region((x, y), judged[2].start, judged[2].stop)


def _any_of(labels: Tensor, organs: Sequence[Organ]) -> Tensor:
    out = labels == ORGAN_LABEL[organs[0]]
    for organ in organs[1:]:
        out |= labels == ORGAN_LABEL[organ]
    return out


def judged_slices(where: Region) -> list[int]:
    """Indices of the slices that are judged within a region."""
    return list(range(where.low, where.high, STEP))


def points(
    centre: tuple[float, float], field: float, turn: float, size: int
) -> tuple[Tensor, Tensor]:
    """Where the pixels of a square picture lie: x and y in voxels, (size, size) each.

    `field`: side in voxels. Top is front (+y), left is the patient's right (+x).
    """
    half = field / 2
    rows, columns = torch.meshgrid(
        torch.linspace(half, -half, size), torch.linspace(half, -half, size), indexing="ij"
    )
    cos, sin = torch.cos(torch.tensor(turn)), torch.sin(torch.tensor(turn))
    return centre[0] + columns * cos - rows * sin, centre[1] + columns * sin + rows * cos


def cut(
    hu: Tensor,
    slices: Sequence[int],
    centre: tuple[float, float],
    view: View,
    pixel_mm: float,
    *,
    zoom: float = 1.0,
    turn: float = 0.0,
    size: int = SIZE,
) -> Tensor:
    """Pictures (S, 3, size, size) in [-1, 1] from HU (X, Y, Z).

    `pixel_mm` is the in-plane spacing; `zoom` and `turn` (radians) serve augmentation. Slices
    outside the scan repeat the nearest one; air is put beside the scan.
    """
    depth = hu.shape[2]
    channels = torch.tensor([[max(s - 1, 0), s, min(s + 1, depth - 1)] for s in slices])
    used, index = torch.unique(channels, return_inverse=True)  # a plane serves several slices
    shape = (int(hu.shape[0]), int(hu.shape[1]))
    x, y, where = _sampling(centre, view.field_mm * zoom / pixel_mm, turn, size, shape)
    planes = hu[x, y].permute(2, 0, 1).index_select(0, used).float()  # (P, X', Y')
    planes = ((planes.clamp(LOW_HU, view.high_hu) - LOW_HU) / (view.high_hu - LOW_HU)) * 2
    # The planes are the channels of one picture: weights are computed once. Zeros outside.
    sampled = F.grid_sample(planes[None], where, mode="bilinear", align_corners=True)[0] - 1
    return sampled[index]  # (S, 3, size, size)


@lru_cache(maxsize=8)  # the batches of a view ask for the same
def _sampling(
    centre: tuple[float, float], field: float, turn: float, size: int, shape: tuple[int, int]
) -> tuple[slice, slice, Tensor]:
    """The voxels (x, y) that a picture needs, and where in them its pixels lie, for grid_sample."""
    px, py = points(centre, field, turn, size)
    x, y = _reach(px, shape[0]), _reach(py, shape[1])
    at = [2 * (v - part.start) / max(part.stop - part.start - 1, 1) - 1
          for v, part in ((py, y), (px, x))]  # fmt: skip
    return x, y, torch.stack(at, -1)[None]  # (1, size, size, 2): last axis y, x


def _reach(at: Tensor, count: int) -> slice:
    """The voxels of one axis that positions `at` lie between; two at least."""
    low = min(max(int(at.min()) - 1, 0), count - 1)
    high = min(max(int(at.max()) + 2, low + 2), count)
    return slice(max(min(low, high - 2), 0), high)
