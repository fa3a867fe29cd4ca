"""Tensor tools of the simulator: grids, smooth random fields, blobs and tubes.

A `Grid` is axis-aligned in RAS+ mm; every field is a tensor (X, Y, Z) on it. Randomness comes from
`Dice`, so that the same seed gives the same patient on the same device type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Point = Sequence[float]


class Dice:
    """Seeded randomness: `rng` for numbers, `generator` for tensors."""

    def __init__(self, seed: int | Sequence[int], device: str = "cpu") -> None:
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator(device=device)
        self.generator.manual_seed(int(self.rng.integers(2**62)))
        self.device = torch.device(device)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def normal(self, mean: float, sd: float) -> float:
        return float(self.rng.normal(mean, sd))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def direction(self) -> NDArray[np.float64]:
        """A unit vector, uniform on the sphere."""
        v = self.rng.normal(size=3)
        return np.asarray(v / np.linalg.norm(v))

    def randn(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator, device=self.device)


@dataclass(frozen=True)
class Grid:
    """Axis-aligned voxel grid: `shape` (X, Y, Z), `spacing` and `origin` (first voxel), RAS+ mm."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    @property
    def affine(self) -> NDArray[np.float64]:
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = self.origin
        return affine

    @property
    def voxel_ml(self) -> float:
        return math.prod(self.spacing) / 1000.0

    def axis(self, dim: int, device: torch.device | None = None) -> Tensor:
        """World coordinate of each voxel along one axis, mm."""
        index = torch.arange(self.shape[dim], dtype=torch.float32, device=device)
        return index * self.spacing[dim] + self.origin[dim]

    def box(self, centre: Point, half: float | Point) -> tuple[slice, slice, slice]:
        """Index ranges of the axis-aligned box centre +- half (mm), clipped to the grid."""
        halves = (half,) * 3 if isinstance(half, int | float) else half
        out = []
        for d in range(3):
            low = math.floor((centre[d] - halves[d] - self.origin[d]) / self.spacing[d])
            high = math.ceil((centre[d] + halves[d] - self.origin[d]) / self.spacing[d]) + 1
            low = min(max(low, 0), self.shape[d])
            out.append(slice(low, max(min(high, self.shape[d]), low)))
        return out[0], out[1], out[2]

    def index(self, point: Point) -> tuple[int, int, int]:
        """Nearest voxel, clipped to the grid."""
        ijk = [
            min(max(round((point[d] - self.origin[d]) / self.spacing[d]), 0), self.shape[d] - 1)
            for d in range(3)
        ]
        return ijk[0], ijk[1], ijk[2]

    def world(self, ijk: Point) -> NDArray[np.float64]:
        """RAS+ mm of a voxel index."""
        scaled: NDArray[np.float64] = np.asarray(ijk, dtype=np.float64) * np.asarray(self.spacing)
        moved: NDArray[np.float64] = scaled + np.asarray(self.origin)
        return moved


def member(labels: Tensor, values: Sequence[int]) -> Tensor:
    """Mask of the voxels whose label is one of `values` (faster than torch.isin for a few)."""
    out = labels == int(values[0])
    for value in values[1:]:
        out |= labels == int(value)
    return out


def empty(box: tuple[slice, slice, slice]) -> bool:
    """True if a clipped box holds no voxel."""
    return any(s.stop <= s.start for s in box)


def resize(field: Tensor, shape: Sequence[int], mode: str = "trilinear") -> Tensor:
    """(x, y, z) -> (X, Y, Z) by interpolation."""
    corners = False if mode == "trilinear" else None
    return F.interpolate(field[None, None], size=tuple(shape), mode=mode, align_corners=corners)[
        0, 0
    ]


def smooth_noise(
    dice: Dice, shape: Sequence[int], spacing: Sequence[float], scale_mm: float
) -> Tensor:
    """Smooth Gaussian noise (X, Y, Z), zero mean and unit sd, features of about `scale_mm`."""
    coarse = [max(3, math.ceil(n * s / scale_mm) + 2) for n, s in zip(shape, spacing, strict=True)]
    coarse = [min(c, max(n, 3)) for c, n in zip(coarse, shape, strict=True)]
    field = resize(dice.randn(coarse), shape)
    return (field - field.mean()) / field.std().clamp_min(1e-6)


def _kernel(sigma: float, device: torch.device) -> Tensor:
    radius = max(1, math.ceil(2.5 * sigma))
    t = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    k = torch.exp(-0.5 * (t / sigma) ** 2)
    return k / k.sum()


def blur(field: Tensor, spacing: Sequence[float], sigma_mm: float | Sequence[float]) -> Tensor:
    """Gaussian blur of (X, Y, Z), sigma in mm a axis; the edge is repeated."""
    sigmas = (sigma_mm,) * 3 if isinstance(sigma_mm, int | float) else tuple(sigma_mm)
    out = field[None, None].float()
    for d in range(3):
        sigma = sigmas[d] / spacing[d]
        if sigma < 0.15 or field.shape[d] == 1:
            continue
        k = _kernel(sigma, field.device)
        pad = [0] * 6
        pad[2 * (2 - d)] = pad[2 * (2 - d) + 1] = len(k) // 2
        shape = [1, 1, 1, 1, 1]
        shape[2 + d] = len(k)
        out = F.conv3d(F.pad(out, pad, mode="replicate"), k.reshape(shape))
    return out[0, 0]


def coarse_blur(mask: Tensor, grid: Grid, sigma_mm: float, factor: int = 3) -> Tensor:
    """Wide blur of a mask, computed on a coarser grid: (X, Y, Z) in [0, 1]."""
    small = F.avg_pool3d(mask.float()[None, None], factor, ceil_mode=True, count_include_pad=False)[
        0, 0
    ]
    spacing = [s * n / m for s, n, m in zip(grid.spacing, mask.shape, small.shape, strict=True)]
    return resize(blur(small, spacing, sigma_mm), mask.shape)


def depth_mm(mask: Tensor, spacing: Sequence[float], factor: int = 1) -> Tensor:
    """Signed distance to the border of a mask in mm: positive inside, negative outside.

    Euclidean distance transform on every `factor`-th voxel, then interpolated.
    """
    from scipy.ndimage import distance_transform_edt

    small = resize(mask.float(), [max(2, n // factor) for n in mask.shape]) if factor > 1 else mask
    inside = (small > 0.5).cpu().numpy()
    step = [s * n / m for s, n, m in zip(spacing, mask.shape, small.shape, strict=True)]
    distance = np.full(inside.shape, -1e3, dtype=np.float32)
    if inside.any():
        distance = distance_transform_edt(inside, step) if inside.any() else distance
        if not inside.all():
            distance = distance - distance_transform_edt(~inside, step)
    out = torch.as_tensor(np.asarray(distance, dtype=np.float32), device=mask.device)
    return resize(out, mask.shape) if factor > 1 else out


def rotation(dice: Dice, degrees: float) -> NDArray[np.float64]:
    """Random rotation matrix, each angle normal with the given sd."""
    a, b, c = np.radians(dice.rng.normal(0, degrees, 3))
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(rx @ ry @ rz)


def ellipsoid(
    xyz: tuple[Tensor, Tensor, Tensor],
    centre: Point,
    radii: Point,
    turn: NDArray[np.float64] | None = None,
) -> Tensor:
    """Implicit ellipsoid: below 1 inside. `xyz` broadcast to (X, Y, Z), mm."""
    d = [c - o for c, o in zip(xyz, centre, strict=True)]
    if turn is not None:
        d = [d[0] * turn[i, 0] + d[1] * turn[i, 1] + d[2] * turn[i, 2] for i in range(3)]
    return (d[0] / radii[0]) ** 2 + (d[1] / radii[1]) ** 2 + (d[2] / radii[2]) ** 2


def smooth_path(points: NDArray[np.float64], step_mm: float) -> NDArray[np.float64]:
    """Catmull-Rom curve through (n, 3) points, sampled about every `step_mm`: (m, 3)."""
    p = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    pieces = []
    for i in range(1, len(p) - 2):
        n = max(2, int(np.linalg.norm(p[i + 1] - p[i]) / step_mm) + 1)
        t = np.linspace(0, 1, n, endpoint=False)[:, None]
        pieces.append(
            0.5
            * (
                2 * p[i]
                + (p[i + 1] - p[i - 1]) * t
                + (2 * p[i - 1] - 5 * p[i] + 4 * p[i + 1] - p[i + 2]) * t**2
                + (3 * p[i] - p[i - 1] - 3 * p[i + 1] + p[i + 2]) * t**3
            )
        )
    return np.vstack([*pieces, points[-1:]])


def paint_tube(
    distance: NDArray[np.float32],
    grid: Grid,
    path: NDArray[np.float64],
    radius: float | NDArray[np.float64],
    reach_mm: float = 3.0,
) -> None:
    """Lower `distance` (X, Y, Z; mm) to the distance from a tube's wall, within its reach.

    Negative inside. In place, on a numpy array: thousands of tiny boxes are faster there.
    """
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(path),))
    axes = [grid.axis(d).numpy() for d in range(3)]
    for p, r in zip(path, radii, strict=True):
        box = grid.box(p, float(r) + reach_mm)
        if empty(box):
            continue
        dx = (axes[0][box[0]] - p[0]) ** 2
        dy = (axes[1][box[1]] - p[1]) ** 2
        dz = (axes[2][box[2]] - p[2]) ** 2
        d = np.sqrt(dx[:, None, None] + dy[None, :, None] + dz[None, None, :]) - r
        np.minimum(distance[box], d, out=distance[box])
