"""The grain of a scanned background, so that it runs on through what is put into it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from triage.simulate.fields import Grid, blur
from triage.simulate.shapes import Box

SIGMA_MM, MOST_HU = 2.5, 45.0  # as `patient.blend` takes it: what a blur takes away, cut off


def regrained(real: Tensor, edited: Tensor, kept: Tensor, grid: Grid, block: Box) -> Tensor:
    """Edited HU (X, Y, Z) such that `patient.blend`, which adds the scan's grain, ends well.

    What is left of the old image (`kept`, 0 to 1) has its grain already, and grain of organ borders
    must not show where they were painted over: new tissue gets that of `block`, which lies within
    an organ.
    """
    rough = real - blur(real, grid.spacing, SIGMA_MM)
    new = edited + (1 - kept) * _mirrored(rough, block) - rough.clamp(-MOST_HU, MOST_HU)
    return torch.where(edited != real, new, edited)


def deepest(grid: Grid, box: Box, depth: Tensor) -> Box:
    """The largest block around the deepest point of an organ (`depth` in its box, mm)."""
    deep = np.unravel_index(int(depth.argmax()), tuple(depth.shape))
    at = grid.world([int(i) + s.start for i, s in zip(deep, box, strict=True)])
    return grid.box(tuple(at), 0.7 * float(depth.max()))


def _mirrored(rough: Tensor, box: Box) -> Tensor:
    """The grain of a block without vessels' edges, mirrored over the whole image."""
    block = rough[box] - rough[box].median()
    sd = 1.4826 * float(block.abs().median())
    block = block.clamp(-3 * sd, 3 * sd)
    for d, n in enumerate(rough.shape):
        m = block.shape[d]
        turn = torch.arange(n, device=block.device) % (2 * m)
        block = block.index_select(d, torch.where(turn < m, turn, 2 * m - 1 - turn))
    return block
