"""Masks: boxes around them, and growing by whole voxels."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from triage.imaging.body import Slices


def box_of(mask: Tensor, margin: Sequence[int] = (0, 0, 0)) -> Slices | None:
    """Smallest box around what is not zero in (X, Y, Z), with a margin in voxels; None if empty."""
    flat = mask != 0
    over_z = flat.any(2)  # (X, Y)
    box = []
    for n, any_, wide in zip(
        mask.shape, (over_z.any(1), over_z.any(0), flat.any(0).any(0)), margin, strict=True
    ):
        index = any_.nonzero().flatten()
        if len(index) == 0:
            return None
        box.append(slice(max(0, int(index[0]) - wide), min(int(n), int(index[-1]) + 1 + wide)))
    return box[0], box[1], box[2]


def grown(mask: Tensor, reach: Sequence[int]) -> Tensor:
    """True within `reach` voxels (a box) of what is true in a bool mask (X, Y, Z).

    By doubling: a window of w voxels takes log2(w) passes of OR.
    """
    for axis, r in enumerate(reach):
        if r <= 0:
            continue
        pad = [0, 0] * (2 - axis) + [r, r]
        current, length, window = F.pad(mask, pad, value=False), 1, 2 * r + 1
        while length < window:  # current[i] is the OR of `length` voxels from i on
            step = min(length, window - length)
            n = current.shape[axis] - step
            current = current.narrow(axis, 0, n) | current.narrow(axis, step, n)
            length += step
        mask = current
    return mask
