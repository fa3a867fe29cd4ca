"""Shapes of lesions: distances, soft borders, the surface of an organ. mm, RAS+."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from triage.simulate.canvas import Canvas

Box = tuple[slice, slice, slice]


def grown(mask: Tensor, spacing: tuple[float, float, float], mm: float) -> Tensor:
    """A mask with everything within `mm` of it (a box)."""
    out = mask.clone()
    for d, step in enumerate(spacing):
        reach, n = max(round(mm / step), 1), out.shape[d]
        done = 0
        while done < min(reach, n - 1):  # twice as far each time
            move = min(2 * done + 1, reach - done, n - 1)
            here = out.clone()
            out.narrow(d, move, n - move).logical_or_(here.narrow(d, 0, n - move))
            out.narrow(d, 0, n - move).logical_or_(here.narrow(d, move, n - move))
            done += move
    return out


def soft(field_: Tensor, edge_mm: float) -> Tensor:
    """Signed distance (negative inside, mm) -> share in (0, 1) with a soft border."""
    return torch.sigmoid(-1.7 * field_ / max(edge_mm, 0.3))


def extent_mm(mask: Tensor, spacing: tuple[float, float, float]) -> float:
    """Largest extent of a mask, mm: the widest of its projections onto 100 directions."""
    points = mask.nonzero()
    if len(points) == 0:
        return 0.0
    points = points[:: max(1, len(points) // 8000)].float() * points.new_tensor(
        spacing, dtype=torch.float32
    )
    k = torch.arange(100, device=points.device) + 0.5
    z, angle = k / 100, k * 2.399963  # half a Fibonacci sphere
    flat = torch.sqrt(1 - z**2)
    along = points @ torch.stack([flat * torch.cos(angle), flat * torch.sin(angle), z])
    return float((along.amax(0) - along.amin(0)).max()) + min(spacing)


def offset(xyz: tuple[Tensor, Tensor, Tensor], point: NDArray[np.float64]) -> list[Tensor]:
    """Coordinates (x, y, z) relative to a point, mm."""
    return [c - float(p) for c, p in zip(xyz, point, strict=True)]


def distance(xyz: tuple[Tensor, Tensor, Tensor], point: NDArray[np.float64]) -> Tensor:
    """Distance from a point, mm."""
    d = offset(xyz, point)
    return torch.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)


def component(d: list[Tensor], direction: NDArray[np.float64]) -> Tensor:
    """Component of offsets along a unit vector, mm."""
    return d[0] * float(direction[0]) + d[1] * float(direction[1]) + d[2] * float(direction[2])


def surface_point(
    c: Canvas, box: Box, depth: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """A point on the capsule and the unit vector inwards."""
    shell = (depth > 0) & (depth < 4)
    if not bool(shell.any()):
        return None
    where = shell.nonzero()
    ijk = where[c.dice.integer(0, len(where) - 1)].cpu().numpy()
    gradient = np.zeros(3)
    for d in range(3):
        up, down = ijk.copy(), ijk.copy()
        up[d] = min(ijk[d] + 3, depth.shape[d] - 1)
        down[d] = max(ijk[d] - 3, 0)
        rise = float(depth[tuple(up)] - depth[tuple(down)])
        gradient[d] = rise / ((up[d] - down[d]) * c.scene.grid.spacing[d])
    norm = np.linalg.norm(gradient)
    inward = gradient / norm if norm > 1e-6 else c.dice.direction()
    return c.scene.grid.world(ijk + [s.start for s in box]), inward
