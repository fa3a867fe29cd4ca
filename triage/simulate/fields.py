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
    """Axis-aligned voxel grid: `shape` (X, Y, Z), `spacing` and `origin` (first voxel), RAS+ mm.

    `device` is where its axes, and what is computed from them, live.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    device: str = "cpu"

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
        where = torch.device(self.device) if device is None else device
        index = torch.arange(self.shape[dim], dtype=torch.float32, device=where)
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
    """(x, y, z) -> (X, Y, Z) by interpolation: "trilinear", or a mode of `F.interpolate`.

    The linear one as products with matrices: several times faster on a CPU.
    """
    if mode != "trilinear":
        return F.interpolate(field[None, None], size=tuple(shape), mode=mode)[0, 0]
    weights: list[Tensor | None] = []
    for few, n in zip(field.shape, shape, strict=True):
        at = (torch.arange(n, device=field.device) + 0.5) * (few / n) - 0.5
        weights.append(_hats(at.clamp(0, few - 1), few) if few != n else None)
    return _mix(field.float(), weights)


def _hats(at: Tensor, knots: int) -> Tensor:
    """Weights (points, knots) of linear interpolation at places given in knots."""
    return (1 - (at[:, None] - torch.arange(knots, device=at.device)).abs()).clamp_min(0)


def _spline(n: int, spacing: float, knot_mm: float, device: torch.device) -> Tensor:
    """Weights (n, knots) of cubic B-splines with knots every `knot_mm` along one axis."""
    length = n * spacing
    gaps = max(1, math.ceil(length / knot_mm))
    at = (np.arange(n) + 0.5) * spacing / length * gaps
    u = np.abs(at[:, None] - np.arange(-1, gaps + 2))
    near, far = 2 / 3 - u**2 + u**3 / 2, np.clip(2 - u, 0, None) ** 3 / 6
    weights = np.where(u < 1, near, far).astype(np.float32)
    return torch.from_numpy(weights).to(device)


def _mix(field: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
    """Each axis of (x, y, z) through its matrix (n, axis); None leaves the axis as it is."""
    out = field
    if weights[0] is not None:
        out = (weights[0] @ out.reshape(out.shape[0], -1)).reshape(-1, *out.shape[1:])
    if weights[1] is not None:
        out = torch.matmul(weights[1], out)
    return out if weights[2] is None else torch.matmul(out, weights[2].T)


def smooth_noise(
    dice: Dice, shape: Sequence[int], spacing: Sequence[float], scale_mm: float
) -> Tensor:
    """Smooth Gaussian noise (X, Y, Z), zero mean and unit sd, features of about `scale_mm`.

    Cubic B-splines with random weights: without the facets of linear interpolation.
    """
    weights = [_spline(n, s, scale_mm, dice.device) for n, s in zip(shape, spacing, strict=True)]
    knots = dice.randn([w.shape[1] for w in weights])
    few = _mix(knots, [w[:: 1 + len(w) // 60] for w in weights])  # enough for mean and sd
    return _mix((knots - few.mean()) / few.std(correction=0).clamp_min(1e-6), weights)


def bump(t: Tensor) -> Tensor:
    """1 at zero, falling to 0 at +-1: the profile of a thin line."""
    return (1 - t * t).clamp_min(0)


def finer(field: Tensor, steps: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Every `steps`-th voxel of a smooth field -> all (X, Y, Z) of `shape`, linearly."""
    weights: list[Tensor | None] = []
    for n, few, step in zip(shape, field.shape, steps, strict=True):
        at = (torch.arange(n, device=field.device) / step).clamp(max=few - 1)
        weights.append(_hats(at, few))
    return _mix(field, weights)


def _gaussian(n: int, sigma: float, device: torch.device) -> Tensor:
    """Matrix (n, n) of a Gaussian blur, sigma in voxels; the edge is repeated."""
    radius = max(1, math.ceil(3 * sigma))
    step = torch.arange(-radius, radius + 1, device=device)
    k = torch.exp(-0.5 * (step / sigma) ** 2)
    source = (torch.arange(n, device=device)[:, None] + step).clamp(0, n - 1)  # (n, taps)
    return torch.zeros(n, n, device=device).scatter_add_(1, source, (k / k.sum()).expand(n, -1))


def blur(field: Tensor, spacing: Sequence[float], sigma_mm: float | Sequence[float]) -> Tensor:
    """Gaussian blur of (X, Y, Z), sigma in mm a axis; the edge is repeated.

    As products with banded matrices: several times faster than convolution on a CPU.
    """
    sigmas = (sigma_mm,) * 3 if isinstance(sigma_mm, int | float) else tuple(sigma_mm)
    weights: list[Tensor | None] = []
    for n, s, mm in zip(field.shape, spacing, sigmas, strict=True):
        none = mm / s < 0.15 or n == 1
        weights.append(None if none else _gaussian(n, mm / s, field.device))
    return _mix(field.float(), weights)


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


def sub_grid(grid: Grid, box: tuple[slice, slice, slice]) -> Grid:
    """The part of a grid within a box."""
    shape = tuple(s.stop - s.start for s in box)
    origin = tuple(
        o + s.start * step for o, s, step in zip(grid.origin, box, grid.spacing, strict=True)
    )
    return Grid(shape, grid.spacing, origin, grid.device)
