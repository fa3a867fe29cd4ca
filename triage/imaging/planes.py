"""A map of the working grid on a volume's own voxels, slice by slice: never the whole at once."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from triage.imaging.body import Slices
from triage.imaging.masks import box_of
from triage.imaging.resample import from_grid, grid_positions
from triage.imaging.separable import apply, weights
from triage.types import Volume


class Planes:
    """What `from_grid` gives, one slice at a time.

    `shape` (X, Y, Z) of the volume; `box`: its voxels that may be other than zero, None for an
    empty map. In plane the map is resampled once, between slices when asked.
    """

    def __init__(self, grid_map: MetaTensor, like: Volume, *, labels: bool = False) -> None:
        self.shape = tuple(int(n) for n in like.hu.shape[1:])
        self.affine = like.hu.affine
        self.box: Slices | None = None
        values = grid_map.as_tensor()[0]  # (X', Y', Z')
        positions = grid_positions(grid_map, like)
        if positions is None:  # oblique: no shorter way
            whole = from_grid(grid_map, like, labels=labels).as_tensor()[0].float()
            self.box = box_of(whole)
            if self.box is not None:
                part = whole[self.box].permute(2, 1, 0).contiguous()  # (Z, Y, X)
                self._part, self._mix = part, torch.eye(len(part))
            return
        near = box_of(values)
        if near is None:
            return
        box, matrices = [], []
        for at, n, part in zip(positions, values.shape, near, strict=True):
            reached = (at > max(-0.5, part.start - 1)) & (at < min(n - 0.5, part.stop))
            index = np.flatnonzero(reached)
            if len(index) == 0:
                return
            box.append(slice(int(index[0]), int(index[-1]) + 1))
            own = at[reached]
            if labels:
                own = np.rint(own).clip(0, n - 1)
            matrices.append(weights(own, n, keep_edge=False))
        self.box = (box[0], box[1], box[2])
        z = near[2]
        flat = values[:, :, z].float()
        in_plane = [matrices[0], matrices[1], torch.eye(z.stop - z.start)]
        self._part = apply(flat, in_plane).permute(2, 1, 0).contiguous()  # (Z', Y, X)
        self._mix = matrices[2][:, z]  # (Z, Z')

    def stack(self, first: int, last: int) -> Tensor:
        """The box's part of slices `first` to `last` - 1, all in the box: float32 (Z, Y, X)."""
        if self.box is None:
            raise IndexError(f"Expected slices in a box, got {first} to {last}, and none is there")
        low = self.box[2].start
        rows = self._mix[first - low : last - low]  # (Z, Z')
        used = rows.any(0).nonzero().flatten()
        if len(used) == 0:
            return torch.zeros((last - first, *self._part.shape[1:]))
        part = slice(int(used[0]), int(used[-1]) + 1)
        out: Tensor = torch.tensordot(rows[:, part], self._part[part], dims=1)
        return out

    def peak(self) -> float:
        """A bound of the largest magnitude, met but for what mixing two slices takes off."""
        return float(self._part.abs().max()) if self.box is not None else 0.0

    def whole_slice(self, k: int) -> Tensor:
        """Slice k on all its voxels, float32 (X, Y)."""
        out = torch.zeros(self.shape[:2])
        box = self.box
        if box is not None and box[2].start <= k < box[2].stop:
            out[box[0], box[1]] = self.stack(k, k + 1)[0].transpose(0, 1)
        return out
