"""From the ideal patient to the slices of a study: field of view, table, point spread, noise.

`scanner.scan` finishes a volume on the simulation's own grid, for training in memory. Here the
same scanner looks at the patient on the matrix of a real study, slab by slab, and noise is added
at that resolution. Slices are (row, column): rows run from front to back, columns from the
patient's right to left (PS3.3 C.7.6.2 with ImageOrientationPatient 1\\0\\0\\0\\1\\0).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.artefacts import Artefacts
from triage.simulate.fields import Dice, Grid
from triage.simulate.noise import Noise, dose, shared_noise
from triage.simulate.scanner import SLAB, Scanner, outline, table

# Slice increments in mm and how often they are drawn.
STEPS: dict[float, float] = {1.0: 1, 1.25: 3, 1.5: 2, 2.0: 4, 2.5: 5, 3.0: 5, 4.0: 1, 5.0: 6}
SLICES = (60, 250)  # fewest and most slices of a series


@dataclass(frozen=True)
class Frame:
    """The matrix of a study. `origin`: RAS+ mm of row 0, column 0, lowest slice, in the
    simulation's coordinates; `shift` is added to give the scanner's coordinates."""

    matrix: int
    slices: int
    pixel_mm: float
    step_mm: float
    thickness_mm: float
    origin: tuple[float, float, float]
    shift: tuple[float, float, float]

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4): (column, row, slice) -> RAS+ mm, scanner coordinates."""
        out = np.diag([-self.pixel_mm, -self.pixel_mm, self.step_mm, 1.0])
        out[:3, 3] = np.add(self.origin, self.shift)
        return out

    def points(self, dim: int) -> NDArray[np.float64]:
        """Simulation coordinates along x (columns), y (rows) or z (slices), mm."""
        if dim == 2:
            return self.origin[2] + self.step_mm * np.arange(self.slices, dtype=np.float64)
        return self.origin[dim] - self.pixel_mm * np.arange(self.matrix, dtype=np.float64)

    @cached_property
    def circle(self) -> Tensor:
        """Mask (row, column) of the circle of reconstruction."""
        off = torch.arange(self.matrix) - (self.matrix - 1) / 2
        return off[:, None] ** 2 + off[None, :] ** 2 <= (self.matrix / 2) ** 2


def draw_frame(
    hu: Tensor, grid: Grid, matrix: int, dice: Dice, steps: Mapping[float, float] = STEPS
) -> Frame:
    """A field of view around the body and a slice increment. `hu`: ideal image (X, Y, Z)."""
    where = outline(hu).nonzero()
    if len(where) == 0:
        raise ValueError("There is no body in the image: nothing is above -300 HU.")
    points = where.double().numpy() * grid.spacing[:2] + np.asarray(grid.origin[:2])
    centre = (points.min(0) + points.max(0)) / 2 + dice.rng.normal(0, 4, 2)
    reach = float(np.linalg.norm(points - centre, axis=1).max())
    # 512 pixels of 0.7 to 0.95 mm; a very large patient is cut off, as in life
    wanted = 2 * (reach + dice.uniform(3, 30)) / 512
    pixel = round(min(max(wanted, 0.7), 0.95) * 512 / matrix, 4)
    length = grid.shape[2] * grid.spacing[2]
    step = _draw_step(length, dice, steps)
    thick = step * float(dice.rng.choice([1.0, 1.0, 1.0, 1.25, 2.0]))
    half = (matrix - 1) / 2 * pixel
    low = grid.origin[2] - grid.spacing[2] / 2 + step / 2
    corner = [round(c + half, 3) for c in centre]
    origin = (corner[0], corner[1], round(low, 3))
    sideways, height = np.round(dice.rng.normal(0, 8, 2) - centre, 2)
    shift = (float(sideways), float(height), 0.5 * dice.integer(-2400, 600))
    slices = max(3, int(length / step))
    return Frame(matrix, slices, pixel, step, min(thick, max(step, 5.0)), origin, shift)


def _draw_step(length: float, dice: Dice, steps: Mapping[float, float]) -> float:
    """An increment that gives a usual number of slices; else the nearest one that there is."""
    fit = [s for s in steps if SLICES[0] <= int(length / s) <= SLICES[1]]
    if not fit:
        return min(steps, key=lambda s: abs(math.log(length / s / 100)))
    weights = np.asarray([steps[s] for s in fit], dtype=float)
    return float(dice.rng.choice(fit, p=weights / weights.sum()))


def sampling(
    start: float, step: float, n: int, points: NDArray[np.float64], sigma: float, *, extend: bool
) -> Tensor:
    """Weights (points, n): a Gaussian of `sigma` mm on samples `start + i step`.

    `extend`: beyond the ends the last sample goes on; else there is nothing (zero).
    """
    samples = start + step * np.arange(n)
    sigma = max(sigma, 0.45 * step)  # narrower would show the simulation's voxels
    weights = np.exp(-0.5 * ((points[:, None] - samples) / sigma) ** 2)
    if extend:
        points = np.clip(points, samples[0], samples[-1])
        weights = np.exp(-0.5 * ((points[:, None] - samples) / sigma) ** 2)
        whole = weights.sum(1)
    else:  # the sum over samples without end
        pad = math.ceil(5 * sigma / step)
        phase = (points - start) / step % 1.0
        lattice = step * (np.arange(-pad, pad + 2)[None, :] - phase[:, None])
        whole = np.exp(-0.5 * (lattice / sigma) ** 2).sum(1)
    return torch.from_numpy((weights / whole[:, None]).astype(np.float32))


def nearest(grid: Grid, dim: int, points: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Nearest voxel of each point along one axis, and whether it lies in the grid."""
    index = np.rint((points - grid.origin[dim]) / grid.spacing[dim]).astype(np.int64)
    inside = (index >= 0) & (index < grid.shape[dim])
    return torch.from_numpy(index.clip(0, grid.shape[dim] - 1)), torch.from_numpy(inside)


def on_frame(mask: Tensor, grid: Grid, frame: Frame) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) on the study's matrix by nearest voxel: uint8 (slice, row, column)."""
    (x, in_x), (y, in_y), (z, _) = (nearest(grid, d, frame.points(d)) for d in range(3))
    out = np.zeros((frame.slices, frame.matrix, frame.matrix), np.uint8)
    region = (in_y[:, None] & in_x[None, :]).to(torch.uint8)
    for k in range(frame.slices):
        plane = mask[:, :, int(z[k])].to(torch.uint8)
        out[k] = (plane.index_select(0, x).index_select(1, y).T * region).numpy()
    return out


def acquire(
    hu: Tensor, grid: Grid, frame: Frame, scanner: Scanner, dice: Dice, *, real: bool
) -> Iterator[Tensor]:
    """Slices from the feet upwards: HU (row, column), float32, -1024 to 3071.

    `hu`: ideal image (X, Y, Z). `real`: it is a scanned background, whose scanner has softened it
    already and whose table is in the picture.
    """
    psf = 0.0 if real else scanner.psf_mm
    ahead = math.hypot(psf, scanner.motion)
    along = math.hypot(frame.thickness_mm / 2.355, 0.5 * scanner.motion)
    weights = [
        sampling(grid.origin[d], grid.spacing[d], grid.shape[d], frame.points(d), s, extend=d == 2)
        for d, s in enumerate((psf, ahead, along))
    ]
    above_air = (hu + 1000).permute(2, 1, 0).contiguous()  # (Z, Y, X)
    xs, ys = (torch.from_numpy(frame.points(d)).float() for d in range(2))
    board = table(hu, grid, xs, ys, dice) if scanner.table and not real else None
    shape, pixel = (frame.matrix, frame.matrix), (frame.pixel_mm, frame.pixel_mm)
    shared = shared_noise(frame.step_mm, frame.thickness_mm)
    noise = Noise(shape, pixel, scanner.grain_mm, shared, dice, scanner.blotch)
    loud, by_slice, by_place = dose(hu, grid, frame.thickness_mm)
    strength = 0.0 if real else scanner.streaks
    artefacts = Artefacts(*shape, pixel, strength, scanner.noise * loud, dice)
    level = scanner.noise * loud * (weights[1] @ by_place.T @ weights[0].T).clamp_min(0.5)
    by_slice = (weights[2] @ by_slice)[:, None, None]
    flat = above_air.reshape(grid.shape[2], -1)
    for start in range(0, frame.slices, SLAB):
        some = slice(start, start + SLAB)
        slab = (weights[2][some] @ flat).reshape(-1, grid.shape[1], grid.shape[0])
        slab = (weights[1] @ slab @ weights[0].T).sub_(1000)  # (slab, row, column)
        if board is not None:
            torch.maximum(slab, board, out=slab)
        slab = artefacts(slab)
        slab.add_(noise(len(slab)).mul_(level).mul_(by_slice[some]))
        yield from slab.clamp_(-1024, 3071)
