"""Masks: boxes around them, and growing by whole voxels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from triage.imaging.body import Slices


def box_of(mask: Tensor, margin: Sequence[int] = (0, 0, 0)) -> Slices | None:
    """Smallest box around what is not zero in (X, Y, Z), with a margin in voxels; None if empty."""
    box = []
    for used, wide in zip(occupied(mask), margin, strict=True):
        index = used.nonzero().flatten()
        if len(index) == 0:
            return None
        box.append(slice(max(0, int(index[0]) - wide), min(len(used), int(index[-1]) + 1 + wide)))
    return box[0], box[1], box[2]


def occupied(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Along each axis, where (X, Y, Z) is not zero: bool (X,), (Y,), (Z,).

    By maxima of bytes: torch's `any` of bool takes ten times as long.
    """
    seen = (mask if mask.dtype == torch.bool else mask != 0).view(torch.uint8)
    plane = seen.amax(0)  # (Y, Z)
    return seen.amax((1, 2)) > 0, plane.amax(1) > 0, plane.amax(0) > 0


def grown(mask: Tensor, reach: Sequence[int]) -> Tensor:
    """True within `reach` voxels (a box) of what is true in a bool mask (..., X, Y, Z).

    By doubling: a window of w voxels takes log2(w) passes of OR.
    """
    for axis, r in enumerate(reach):
        if r <= 0:
            continue
        pad = [0, 0] * (2 - axis) + [r, r]
        current, length, window = F.pad(mask, pad, value=False), 1, 2 * r + 1
        along = axis - 3
        while length < window:  # current[i] is the OR of `length` voxels from i on
            step = min(length, window - length)
            n = current.shape[along] - step
            current = current.narrow(along, 0, n) | current.narrow(along, step, n)
            length += step
        mask = current
    return mask
