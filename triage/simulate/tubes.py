"""Tubes: smooth curves, and the distance of voxels from the walls around them. RAS+ mm."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.fields import Grid, empty


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
    distance: Tensor,
    grid: Grid,
    path: NDArray[np.float64],
    radius: float | NDArray[np.float64],
    reach_mm: float = 3.0,
) -> None:
    """Lower `distance` (X, Y, Z; mm) to the distance from a tube's wall, within its reach.

    Negative inside. In place. On a CPU as a numpy array, for thousands of tiny boxes are faster
    there; elsewhere all at once.
    """
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(path),))
    if distance.device.type != "cpu":
        _paint_dense(distance, grid, path, radii, reach_mm)
        return
    field = distance.numpy()  # the same memory
    axes = [grid.axis(d, distance.device).numpy() for d in range(3)]
    for p, r in zip(path, radii, strict=True):
        box = grid.box(p, float(r) + reach_mm)
        if empty(box):
            continue
        dx = (axes[0][box[0]] - p[0]) ** 2
        dy = (axes[1][box[1]] - p[1]) ** 2
        dz = (axes[2][box[2]] - p[2]) ** 2
        d = np.sqrt(dx[:, None, None] + dy[None, :, None] + dz[None, None, :]) - np.float32(r)
        np.minimum(field[box], d, out=field[box])


def _paint_dense(
    distance: Tensor,
    grid: Grid,
    path: NDArray[np.float64],
    radii: NDArray[np.float64],
    reach_mm: float,
    chunk: int = 16,
) -> None:
    """`paint_tube` in few large steps, for an accelerator."""
    axes = [grid.axis(d, distance.device) for d in range(3)]
    for start in range(0, len(path), chunk):
        p, r = path[start : start + chunk], radii[start : start + chunk]
        reach = float(r.max()) + reach_mm
        box = grid.box((p.min(0) + p.max(0)) / 2, (np.ptp(p, 0) / 2 + reach).tolist())
        if empty(box):
            continue
        at = torch.as_tensor(p, dtype=torch.float32, device=distance.device)
        wide = torch.as_tensor(r.copy(), dtype=torch.float32, device=distance.device)
        d2 = [(axes[d][box[d]][None] - at[:, d, None]) ** 2 for d in range(3)]
        far = (d2[0][:, :, None, None] + d2[1][:, None, :, None] + d2[2][:, None, None, :]).sqrt()
        near = (far - wide[:, None, None, None]).amin(0)
        near[near > reach_mm] = 1e3
        distance[box] = torch.minimum(distance[box], near)


def path_box(grid: Grid, path: NDArray[np.float64], margin_mm: float) -> tuple[slice, slice, slice]:
    """Index ranges of the box around a path with a margin, clipped to the grid."""
    half = np.ptp(path, 0) / 2 + margin_mm
    return grid.box(((path.min(0) + path.max(0)) / 2).tolist(), half.tolist())
