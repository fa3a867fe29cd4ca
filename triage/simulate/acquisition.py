"""From the ideal patient to the slices of a study: field of view, table, point spread, noise.

`scanner.scan` finishes a volume on the simulation's own grid, for training in memory. Here the
same scanner looks at the patient on the matrix of a real study, slab by slab, and noise is added
at that resolution. Slices are (row, column): rows run from front to back, columns from the
patient's right to left (PS3.3 C.7.6.2 with ImageOrientationPatient 1\\0\\0\\0\\1\\0).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.fields import Dice, Grid
from triage.simulate.scanner import Scanner

SLAB = 16  # slices in memory at once

# Slice increments in mm and how often they are drawn.
STEPS = {1.0: 1, 1.25: 3, 1.5: 2, 2.0: 4, 2.5: 5, 3.0: 5, 4.0: 1, 5.0: 6}
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


def outline(hu: Tensor) -> Tensor:
    """Shadow of the body along z: mask (X, Y) of what is tissue in a twentieth of the slices."""
    return (hu > -300).float().mean(2) > 0.05


def draw_frame(hu: Tensor, grid: Grid, matrix: int, dice: Dice) -> Frame:
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
    step = _draw_step(length, dice)
    thick = step * float(dice.rng.choice([1.0, 1.0, 1.0, 1.25, 2.0]))
    half = (matrix - 1) / 2 * pixel
    low = grid.origin[2] - grid.spacing[2] / 2 + step / 2
    corner = [round(c + half, 3) for c in centre]
    origin = (corner[0], corner[1], round(low, 3))
    sideways, height = np.round(dice.rng.normal(0, 8, 2) - centre, 2)
    shift = (float(sideways), float(height), 0.5 * dice.integer(-2400, 600))
    slices = max(3, int(length / step))
    return Frame(matrix, slices, pixel, step, min(thick, max(step, 5.0)), origin, shift)


def _draw_step(length: float, dice: Dice) -> float:
    """An increment that gives a usual number of slices; else the nearest one that there is."""
    fit = [s for s in STEPS if SLICES[0] <= int(length / s) <= SLICES[1]]
    if not fit:
        return min(STEPS, key=lambda s: abs(math.log(length / s / 100)))
    weights = np.asarray([STEPS[s] for s in fit], dtype=float)
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


def table(hu: Tensor, grid: Grid, frame: Frame, dice: Dice) -> Tensor:
    """The patient table: HU (row, column), the same in all slices; -1000 where there is none.

    A curved board of carbon fibre around foam, just under the back.
    """
    body = outline(hu)
    back = torch.where(body, grid.axis(1)[None, :], torch.tensor(1e4)).amin(1)  # (X,)
    x = grid.axis(0) - float(frame.origin[0] - (frame.matrix - 1) / 2 * frame.pixel_mm)
    bend = dice.uniform(450, 900)
    under = (back - x**2 / (2 * bend))[x.abs() < 150]
    top = float(under.min()) - dice.uniform(1, 5)
    half, deep = dice.uniform(195, 225), dice.uniform(30, 60)
    px = torch.from_numpy(frame.points(0)).float()[None, :]
    px = px - px.mean()
    py = torch.from_numpy(frame.points(1)).float()[:, None]
    upper = top + px**2 / (2 * bend)
    rise = (1 - (px / half) ** 2).clamp_min(0)
    lower = upper - deep * rise**0.7
    inside = torch.minimum(upper - py, py - lower)  # mm below the surface
    inside = torch.minimum(inside, half - px.abs())
    soft = frame.pixel_mm
    board = torch.sigmoid(4 * inside / soft)
    core = torch.sigmoid(4 * (inside - dice.uniform(1.5, 3.0)) / soft)
    shell_hu, foam_hu = dice.uniform(-100, 90), dice.uniform(-960, -900)
    return -1000 + board * (shell_hu + 1000) - core * (shell_hu - foam_hu)


class Noise:
    """CT noise slice after slice, (row, column), unit sd.

    White noise through sqrt(f) times a Gaussian: the ramp of back-projection and the kernel's
    cut-off give a power spectrum of f MTF(f)^2 (Solomon and Samei, Med Phys 2012;39:6048-6054).
    Slices that overlap share part of their noise.
    """

    def __init__(self, frame: Frame, grain_mm: float, dice: Dice) -> None:
        n, p = frame.matrix, frame.pixel_mm
        fy = torch.fft.fftfreq(n, p)[:, None]
        fx = torch.fft.rfftfreq(n, p)[None, :]
        f = torch.sqrt(fx**2 + fy**2)
        # a grain of 1 mm puts the peak of the spectrum at 0.19 per mm
        self.filter = torch.sqrt(f) * torch.exp(-2 * (math.pi * 0.6 * grain_mm * f) ** 2)
        white = 2.0 * self.filter**2
        white[:, 0] /= 2
        self.gain = 1 / math.sqrt(float(white.sum()) / (n * n))
        self.shared = 0.1 + 0.8 * max(0.0, 1 - frame.step_mm / frame.thickness_mm)
        self.n, self.dice, self.last = n, dice, torch.zeros(0)

    def __call__(self, slices: int) -> Tensor:
        """The next slices: (slices, n, n)."""
        white = self.dice.randn((slices, self.n, self.n))
        spectrum = torch.fft.rfft2(white) * self.filter
        noise: Tensor = torch.fft.irfft2(spectrum, s=(self.n, self.n)) * self.gain
        for k in range(slices):
            if len(self.last):
                noise[k] = self.shared * self.last + math.sqrt(1 - self.shared**2) * noise[k]
            self.last = noise[k]
        return noise


def noise_sd(hu: Tensor, grid: Grid, frame: Frame, scanner: Scanner) -> float:
    """HU: more for large patients and for thin slices (fewer photons)."""
    pixel = grid.spacing[0] * grid.spacing[1]
    area = float((hu > -500).sum()) * pixel / max(hu.shape[2], 1)  # mm2 of patient a slice
    dose = math.sqrt(max(area, 2e4) / 7e4)
    thin = min(max(math.sqrt(2.5 / frame.thickness_mm), 0.75), 1.5)
    return scanner.noise * dose * thin


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
    board = None if real or dice.chance(0.12) else table(hu, grid, frame, dice)
    noise = Noise(frame, scanner.grain_mm, dice)
    sd = noise_sd(hu, grid, frame, scanner)
    flat = above_air.reshape(grid.shape[2], -1)
    for start in range(0, frame.slices, SLAB):
        slab = (weights[2][start : start + SLAB] @ flat).reshape(-1, grid.shape[1], grid.shape[0])
        slab = weights[1] @ slab @ weights[0].T - 1000  # (slab, row, column)
        if board is not None:
            slab = torch.maximum(slab, board)
        yield from (slab + sd * noise(len(slab))).clamp(-1024, 3071)
