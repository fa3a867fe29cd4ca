"""Separable resampling: one small weight matrix for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _hat(t: Array) -> Array:
    """Weight of linear interpolation at distance t (in voxels)."""
    return np.maximum(0.0, 1.0 - np.abs(t))


def _hat_integral(t: Array) -> Array:
    """Integral of `_hat` from minus infinity to t."""
    t = np.clip(t, -1.0, 1.0)
    return np.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)


def box_width(ratio: float) -> float:
    """Averaging box, in input voxels, for an output voxel `ratio` input voxels wide.

    The input is already averaged over one voxel, so the variances of the two boxes are subtracted:
    sqrt(ratio^2 - 1), and 0 (linear interpolation) where the output is not coarser.
    """
    return sqrt(max(0.0, ratio * ratio - 1.0))


def weights(positions: Array, count: int, width: float = 0.0, *, keep_edge: bool) -> torch.Tensor:
    """Weights (positions, count) of the linear interpolant averaged over a box.

    Linear ramps are reproduced exactly inside. Beyond the first and last centre the edge value is
    kept with `keep_edge`, else it fades to zero over one voxel.

    Parameters
    ----------
    positions : output centres in input voxels.
    count : number of input voxels.
    width : box in input voxels; 0 is plain linear interpolation.
    """
    distance = positions[:, None] - np.arange(count)[None, :]  # (positions, count)
    if width > 1e-3:
        half = width / 2
        matrix = (_hat_integral(distance + half) - _hat_integral(distance - half)) / width
    else:
        matrix = _hat(distance)
    if keep_edge:
        total = matrix.sum(axis=1, keepdims=True)
        matrix = matrix / np.where(total > 0, total, 1.0)
    return torch.from_numpy(matrix.astype(np.float32))


def apply(voxels: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply (X, Y, Z) by a (X', X), a (Y', Y) and a (Z', Z) matrix -> (X', Y', Z').

    Columns that no output needs are cut off first; the work is done in memory order, so that the
    large input is never transposed, and the strongest reduction comes first.
    """
    used = [torch.nonzero(matrix.any(dim=0)).flatten() for matrix in matrices]
    if any(len(columns) == 0 for columns in used):
        return voxels.new_zeros([len(matrix) for matrix in matrices])
    spans = [(int(columns[0]), int(columns[-1]) + 1) for columns in used]
    for axis, (low, high) in enumerate(spans):
        voxels = voxels.narrow(axis, low, high - low)
    memory = sorted(range(3), key=voxels.stride, reverse=True)  # slowest axis first
    ordered = [matrices[axis][:, slice(*spans[axis])].to(voxels) for axis in memory]
    voxels = voxels.permute(memory)
    for axis in sorted(range(3), key=lambda a: len(ordered[a]) / ordered[a].shape[1]):
        voxels = _ALONG[axis](voxels, ordered[axis])
    return voxels.permute([memory.index(axis) for axis in range(3)])


def _along_slow(voxels: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(A', A) times (A, B, C), touching only the few slices that count."""
    out = voxels.new_zeros((len(matrix), *voxels.shape[1:]))  # (A', B, C)
    for row, weight in zip(out, matrix, strict=True):
        for index in torch.nonzero(weight).flatten().tolist():
            row.add_(voxels[index], alpha=float(weight[index]))
    return out


def _along_middle(voxels: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return torch.bmm(matrix.expand(len(voxels), -1, -1), voxels)  # (A, B, C) -> (A, B', C)


def _along_fast(voxels: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return voxels @ matrix.T  # (A, B, C) -> (A, B, C')


_ALONG = (_along_slow, _along_middle, _along_fast)
