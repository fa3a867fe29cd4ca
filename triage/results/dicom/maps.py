"""Maps and labels of a report on the scanner's own slices: moved by whole voxels, not blurred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from triage.results.dicom.source import Slices

PERCENTILE = 99.5  # of |saliency|: full scale, as in the overlays
HOT = 0.60  # part of the full scale above which a spot is hot, as in the overlays
_OFF_AXIS = 0.05  # voxels that a map may lie askew over its whole length


def on_slices(path: Path, slices: Slices) -> NDArray[Any]:
    """The voxels of a NIfTI file at the centres of the slices' voxels: (slice, row, column).

    Nearest voxel, zero outside; scaled integers come as float32, others as they are. The file's
    axes must be the series' own, in any order and direction and of any spacing: what the analysis
    writes. Raises ValueError otherwise.
    """
    image = nib.load(path)
    raw = np.asanyarray(image.dataobj.get_unscaled())
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    into = np.linalg.inv(image.affine) @ slices.affine  # (column, row, slice) -> voxel of the file
    size = slices.shape[::-1]  # columns, rows, slices
    order = [int(np.abs(into[axis, :3]).argmax()) for axis in range(3)]
    if sorted(order) != [0, 1, 2]:
        raise ValueError("Expected a map along the axes of the series")
    picked, inside = [], []
    for axis, along in enumerate(order):
        others = [other for other in range(3) if other != along]
        askew = sum(abs(into[axis, other]) * size[other] for other in others)
        if askew > max(_OFF_AXIS, _OFF_AXIS * abs(into[axis, along])) + 0.02:
            raise ValueError(f"Expected a map along the axes of the series, {askew:.2f} voxels off")
        at = np.rint(into[axis, along] * np.arange(size[along]) + into[axis, 3]).astype(int)
        inside.append((at >= 0) & (at < raw.shape[axis]))
        picked.append(at.clip(0, raw.shape[axis] - 1))
    taken = raw[np.ix_(*picked)]
    for axis, mask in enumerate(inside):
        np.moveaxis(taken, axis, 0)[~mask] = 0
    moved = np.transpose(taken, [order.index(axis) for axis in (2, 1, 0)])
    if (slope, intercept) == (1.0, 0.0):
        return np.ascontiguousarray(moved)
    return np.ascontiguousarray(
        moved.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    )


def full_scale(values: NDArray[np.float32]) -> float:
    """Magnitude of full colour; 0 for an empty map."""
    magnitudes = np.abs(values[values != 0])
    return float(np.percentile(magnitudes, PERCENTILE)) if magnitudes.size else 0.0


def hot_spot(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Voxels that spoke most for the finding: the piece that holds the largest value.

    `values`: (slice, row, column), positive speaks for. Empty where nothing does.
    """
    scale = full_scale(values)
    if scale <= 0 or values.max() <= 0:
        return np.zeros(values.shape, dtype=np.bool_)
    pieces, count = label(values >= HOT * min(scale, float(values.max())))
    if count == 0:
        return np.zeros(values.shape, dtype=np.bool_)
    peak = np.unravel_index(int(values.argmax()), values.shape)
    return np.asarray(pieces == pieces[peak])


def centre_lps(mask: NDArray[np.bool_], slices: Slices) -> NDArray[np.float64]:
    """Centroid of a mask (slice, row, column) in mm, LPS+ as DICOM counts."""
    k, row, column = (float(v) for v in np.argwhere(mask).mean(axis=0))
    point = slices.affine @ np.array([column, row, k, 1.0])
    return np.asarray(point[:3] * (-1.0, -1.0, 1.0))


def voxel_ml(slices: Slices) -> float:
    """Volume of one voxel in mL."""
    return float(abs(np.linalg.det(slices.affine[:3, :3]))) / 1000
