"""Between a volume's own voxels and the working grid, both ways.

The working grid is axis-aligned RAS+ with a fixed spacing. Resampling is separable (see
`separable`): exact, deterministic and fast. Only oblique or sheared volumes take the general way:
blur along their own axes, then trilinear sampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample

from triage.imaging.body import Slices, body_box
from triage.imaging.masks import box_of
from triage.imaging.separable import Array, apply, box_width, weights
from triage.imaging.volume import AIR_HU
from triage.types import Volume

__all__ = ["WORKING_SPACING", "body_box", "from_grid", "to_grid"]

WORKING_SPACING = (1.5, 1.5, 3.0)  # mm
ALIGNED_VOXELS = 0.05  # an affine counts as aligned if no voxel is farther off than this


def to_grid(
    volume: Volume, spacing: Sequence[float] = WORKING_SPACING, *, crop: bool = True
) -> MetaTensor:
    """Resample a volume to the working grid.

    Downsampling averages (anti-aliased), upsampling is linear. The grid covers the scan, or with
    `crop` the body in X and Y and the whole scan in Z. The remainder of a grid voxel is shared
    between both ends, so every covered voxel centre lies inside the grid.

    Parameters
    ----------
    volume : voxels (1, X, Y, Z) in HU, RAS+.
    spacing : grid spacing in mm.
    crop : leave out air and table beside the body.

    Returns
    -------
    MetaTensor float32 (1, X', Y', Z'), HU, affine diagonal; -1024 HU outside the scan.
    """
    step = np.array([float(s) for s in spacing])
    if step.shape != (3,) or not (step > 0).all():
        raise ValueError(f"Expected three positive spacings in mm, got {tuple(spacing)}")
    hu = volume.hu.as_tensor()[0]  # (X, Y, Z)
    affine = _affine(volume.hu)
    region = body_box(volume.hu) if crop else tuple(slice(0, n) for n in hu.shape)
    first, size = _grid_box(affine, region, step)
    grid_affine = np.diag([*step, 1.0])
    grid_affine[:3, 3] = first
    if _is_aligned(affine, hu.shape):
        out = _to_grid_aligned(hu, affine, grid_affine, size)
    else:
        out = _to_grid_oblique(hu, affine, grid_affine, size)
    return MetaTensor(out[None].contiguous(), affine=torch.from_numpy(grid_affine))


def from_grid(grid_map: MetaTensor, like: Volume, *, labels: bool = False) -> MetaTensor:
    """Resample a map on the working grid back onto the volume's own voxels.

    Zero outside the grid, and linear maps fade towards zero over the grid's outermost half voxel:
    edge slices are not repeated. Zero stays exactly zero, signs stay, no value grows.

    Parameters
    ----------
    grid_map : (1, X', Y', Z') with a diagonal affine, e.g. a saliency or label map.
    like : the volume whose voxels (1, X, Y, Z) are wanted.
    labels : take the nearest grid voxel and keep the dtype, instead of linear in float32.

    Raises
    ------
    ValueError
        If the map is not one channel on an axis-aligned RAS+ grid.
    """
    values = grid_map.as_tensor()
    grid_affine = _affine(grid_map)
    _check_map(grid_map, grid_affine)
    if not labels:
        values = values.to(torch.float32)
    affine = _affine(like.hu)
    shape = tuple(int(n) for n in like.hu.shape[1:])
    back = _from_grid_aligned if _is_aligned(affine, shape) else _from_grid_oblique
    out = back(values[0], grid_affine, affine, shape, labels)  # (X, Y, Z)
    return MetaTensor(out[None], affine=torch.from_numpy(affine))


def _affine(image: MetaTensor) -> Array:
    return np.asarray(image.affine.cpu().numpy(), dtype=np.float64)


def _is_aligned(affine: Array, shape: Sequence[int]) -> bool:
    """Whether reading the affine as diagonal moves no voxel by more than 0.05 voxels."""
    matrix = affine[:3, :3]
    size = np.diag(matrix)
    if (size <= 0).any():
        return False
    off = np.abs(matrix - np.diag(size)) @ np.array([float(n) for n in shape])  # mm
    return bool((off <= ALIGNED_VOXELS * size.min()).all())


def _grid_box(
    affine: Array, region: Slices | tuple[slice, ...], step: Array
) -> tuple[Array, tuple[int, ...]]:
    """Centre of the grid's first voxel (mm) and number of voxels, covering the region."""
    x, y, z = ((r.start - 0.5, r.stop - 0.5) for r in region)  # voxel edges
    corners = np.array([[i, j, k, 1.0] for i in x for j in y for k in z])
    world = (corners @ affine.T)[:, :3]  # (8, 3) mm
    low, high = world.min(axis=0), world.max(axis=0)
    size = np.maximum(1, np.ceil((high - low) / step - 1e-6)).astype(int)
    first = (low + high) / 2 - (size - 1) * step / 2  # the remainder goes to both ends alike
    return first, tuple(int(n) for n in size)


def _positions(affine: Array, size: Sequence[int], inside: Array) -> list[Array]:
    """Voxel centres of one aligned image in voxels of another, one array for each axis."""
    return [
        (affine[a, 3] + np.arange(size[a]) * affine[a, a] - inside[a, 3]) / inside[a, a]
        for a in range(3)
    ]


def grid_positions(grid_map: MetaTensor, like: Volume) -> list[Array] | None:
    """The volume's voxel centres in voxels of a map on the working grid, axis by axis.

    None where the volume's axes are not the grid's. Raises ValueError if the map is not one channel
    on an axis-aligned RAS+ grid.
    """
    grid_affine = _affine(grid_map)
    _check_map(grid_map, grid_affine)
    affine = _affine(like.hu)
    shape = tuple(int(n) for n in like.hu.shape[1:])
    return _positions(affine, shape, grid_affine) if _is_aligned(affine, shape) else None


def _check_map(grid_map: MetaTensor, grid_affine: Array) -> None:
    if grid_map.ndim != 4 or grid_map.shape[0] != 1:
        raise ValueError(f"Expected a map (1, X, Y, Z), got {tuple(grid_map.shape)}")
    if not _is_aligned(grid_affine, grid_map.shape[1:]):
        raise ValueError("Expected a map on an axis-aligned RAS+ grid")


def _to_grid_aligned(
    hu: torch.Tensor, affine: Array, grid_affine: Array, size: Sequence[int]
) -> torch.Tensor:
    positions = _positions(grid_affine, size, affine)
    matrices = [
        weights(at, n, box_width(grid_affine[a, a] / affine[a, a]), keep_edge=True)
        for a, (at, n) in enumerate(zip(positions, hu.shape, strict=True))
    ]
    out = apply(hu, matrices)
    for axis, at in enumerate(positions):
        outside = np.flatnonzero(np.abs(at - (hu.shape[axis] - 1) / 2) > hu.shape[axis] / 2 + 1e-6)
        if len(outside):
            out.index_fill_(axis, torch.from_numpy(outside).to(hu.device), AIR_HU)
    return out


def _to_grid_oblique(
    hu: torch.Tensor, affine: Array, grid_affine: Array, size: Sequence[int]
) -> torch.Tensor:
    matrices = []
    for axis, column in enumerate(affine[:3, :3].T):
        nearest = int(np.argmax(np.abs(column)))  # grid axis along this voxel axis
        ratio = grid_affine[nearest, nearest] / float(np.linalg.norm(column))
        at = np.arange(hu.shape[axis], dtype=np.float64)
        matrices.append(weights(at, hu.shape[axis], box_width(ratio), keep_edge=True))
    smooth = apply(hu, matrices).contiguous()
    # Shifted, so that the zeros sampled outside the scan are air.
    image = MetaTensor((smooth - AIR_HU)[None], affine=torch.from_numpy(affine))
    sample = SpatialResample(mode="bilinear", padding_mode="zeros", dtype=torch.float32)
    sampled = sample(image, dst_affine=torch.from_numpy(grid_affine), spatial_size=size)
    out: torch.Tensor = sampled.as_tensor()[0] + AIR_HU
    return out


def _from_grid_aligned(
    values: torch.Tensor, grid_affine: Array, affine: Array, shape: tuple[int, ...], labels: bool
) -> torch.Tensor:
    out = values.new_zeros(shape)
    box = box_of(values)
    if box is None:
        return out
    # Only the block that the map's non-zero box reaches is computed: a fraction of the volume.
    block: list[slice] = []
    reached: list[Array] = []
    for at, n, part in zip(_positions(affine, shape, grid_affine), values.shape, box, strict=True):
        near = (at > max(-0.5, part.start - 1)) & (at < min(n - 0.5, part.stop))
        index = np.flatnonzero(near)
        if len(index) == 0:
            return out
        block.append(slice(int(index[0]), int(index[-1]) + 1))
        reached.append(at[near])
    if labels:
        for axis, at in enumerate(reached):
            nearest = np.rint(at).astype(np.int64).clip(0, values.shape[axis] - 1)
            values = values.index_select(axis, torch.from_numpy(nearest).to(values.device))
        out[tuple(block)] = values
    else:
        matrices = [
            weights(at, n, keep_edge=False) for at, n in zip(reached, values.shape, strict=True)
        ]
        out[tuple(block)] = apply(values, matrices)
    return out


def _from_grid_oblique(
    values: torch.Tensor, grid_affine: Array, affine: Array, shape: tuple[int, ...], labels: bool
) -> torch.Tensor:
    target = torch.from_numpy(affine)

    def sampled(image: torch.Tensor, mode: str) -> torch.Tensor:
        meta = MetaTensor(image[None], affine=torch.from_numpy(grid_affine))
        sample = SpatialResample(mode=mode, padding_mode="zeros", dtype=torch.float32)
        moved: torch.Tensor = sample(meta, dst_affine=target, spatial_size=shape).as_tensor()
        return moved[0]

    if labels:
        return sampled(values.float(), "nearest").round().to(values.dtype)
    inside = sampled(torch.ones_like(values), "nearest")  # 1 inside the grid, 0 outside
    return sampled(values, "bilinear") * inside
