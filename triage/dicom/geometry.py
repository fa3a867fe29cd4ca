"""Where the slices lie: order, affine, tilt, gaps (PS3.3 C.7.6.2.1.1, the image plane module).

Positions and orientations come in DICOM's patient system (LPS+, mm); affines leave in RAS+.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..reasons import NotAnalysed
from .headers import Slice

Array = NDArray[np.float64]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

MAX_TILT_DEGREES = 0.5  # less is rounding, or a bed that gives way
MAX_OBLIQUE_DEGREES = 30.0  # more is a coronal or sagittal reformat
SAME_PLACE_MM = 0.01  # closer slices are one position
STEP_TOLERANCE_MM = 0.11  # positions are written with one decimal by some scanners
STEP_TOLERANCE = 0.10  # of the median step
DRIFT_TOLERANCE = 0.25  # of the median step: largest distance from the straight line


def normal(orientation: Sequence[float]) -> Array:
    """Unit normal (3,) of the plane with direction cosines `orientation` (row, then column)."""
    cosines = np.asarray(orientation, float).reshape(2, 3)
    cross = np.cross(cosines[0], cosines[1])
    return np.asarray(cross / np.linalg.norm(cross))


def is_orthonormal(orientation: Sequence[float], tolerance: float = 1e-3) -> bool:
    """Whether the two direction cosines have unit length and a right angle."""
    cosines = np.asarray(orientation, float).reshape(2, 3)
    return bool(np.abs(cosines @ cosines.T - np.eye(2)).max() <= tolerance)


def is_axial(orientation: Sequence[float]) -> bool:
    """Whether the slices are within `MAX_OBLIQUE_DEGREES` of the transverse plane."""
    return bool(abs(normal(orientation)[2]) >= np.cos(np.radians(MAX_OBLIQUE_DEGREES)))


def heights(slices: Sequence[Slice]) -> Array:
    """Distance (n,) of each slice from the origin along the first slice's normal, in mm."""
    positions = np.array([s.position for s in slices], float)  # (n, 3)
    return np.asarray(positions @ normal(slices[0].orientation or ()))


def in_order(slices: Sequence[Slice]) -> list[Slice]:
    """Sorted by real position along the normal; instance numbers say nothing reliable."""
    return [slices[i] for i in np.argsort(heights(slices), kind="stable")]


def check_steps(slices: Sequence[Slice]) -> None:
    """Refuses a stack, in order, that is no regular, straight pile of slices.

    Raises NotAnalysed: DUPLICATE_SLICE, MIXED_ACQUISITIONS (most positions are there twice), TILT,
    GAP, IRREGULAR_SPACING.
    """
    if len(slices) < 2:
        return
    height = heights(slices)  # (n,)
    steps = np.diff(height)  # (n - 1,)
    _check_duplicates(slices, steps)
    _check_tilt(slices, height)
    _check_regular(slices, height, steps)


def _where(item: Slice) -> str:
    number = "" if item.instance_number is None else f" (instance number {item.instance_number})"
    return f"position {np.round(item.position or (), 2).tolist()}{number}"


def _check_duplicates(slices: Sequence[Slice], steps: Array) -> None:
    same = np.flatnonzero(steps < SAME_PLACE_MM)
    # Three in ten positions twice is a second acquisition, one is a second reconstruction.
    if len(slices) >= 20 and len(same) > 0.3 * len(slices):
        raise NotAnalysed("MIXED_ACQUISITIONS", f"{len(same)} positions are present more than once")
    if len(same):
        raise NotAnalysed("DUPLICATE_SLICE", f"twice at {_where(slices[same[0]])}")


def _check_tilt(slices: Sequence[Slice], height: Array) -> None:
    positions = np.array([s.position for s in slices], float)
    relative = positions - positions[0]
    across = relative - np.outer(height - height[0], normal(slices[0].orientation or ()))  # (n, 3)
    length = float(height[-1] - height[0])
    shift = float(np.linalg.norm(across[-1]))
    angle = float(np.degrees(np.arctan2(shift, length)))
    pixel = min(slices[0].spacing or (1.0,))
    # A shift below a third of a pixel is rounding, whatever angle it makes on a short stack.
    if angle > MAX_TILT_DEGREES and shift > pixel / 3:
        raise NotAnalysed("TILT", f"slices step {angle:.1f} degrees off their normal")
    straight = np.outer((height - height[0]) / length, across[-1])
    jitter = np.linalg.norm(across - straight, axis=1)
    if jitter.max() > max(0.5 * pixel, 0.3):
        worst = slices[int(jitter.argmax())]
        raise NotAnalysed("IRREGULAR_SPACING", f"slice displaced in its plane at {_where(worst)}")


def _check_regular(slices: Sequence[Slice], height: Array, steps: Array) -> None:
    step = float(np.median(steps))
    off = np.abs(steps - step) > max(STEP_TOLERANCE_MM, STEP_TOLERANCE * step)
    if off.any():
        multiples = steps[off] / step
        whole = np.abs(multiples - np.round(multiples)) <= 2 * STEP_TOLERANCE
        if (multiples >= 1.5).all() and whole.all() and off.sum() <= max(3, 0.1 * len(steps)):
            first = slices[int(np.flatnonzero(off)[0])]
            missing = int(np.round(multiples).sum() - len(multiples))
            raise NotAnalysed("GAP", f"{missing} missing after {_where(first)}, step {step:.2f} mm")
        raise NotAnalysed(
            "IRREGULAR_SPACING", f"steps from {steps.min():.2f} to {steps.max():.2f} mm"
        )
    line = np.linspace(height[0], height[-1], len(height))
    drift = float(np.abs(height - line).max())
    if drift > max(STEP_TOLERANCE_MM, DRIFT_TOLERANCE * step):
        raise NotAnalysed("IRREGULAR_SPACING", f"slices up to {drift:.2f} mm off an even pile")


def affine(slices: Sequence[Slice]) -> Array:
    """(4, 4) index (column, row, slice) -> RAS+ mm of a checked stack in order.

    PS3.3 equation C.7.6.2.1-1, with the step between slices from the real positions of the first
    and the last: SliceThickness is no distance.
    """
    first, last = slices[0], slices[-1]
    cosines = np.array(first.orientation, float).reshape(2, 3)
    cosines /= np.linalg.norm(cosines, axis=1, keepdims=True)
    row_spacing, column_spacing = first.spacing or (1.0, 1.0)  # PS3.3 10.7.1.3: rows first
    lps = np.eye(4)
    lps[:3, 0] = cosines[0] * column_spacing
    lps[:3, 1] = cosines[1] * row_spacing
    lps[:3, 2] = normal(first.orientation or ())
    if len(slices) > 1:
        lps[:3, 2] = np.subtract(last.position or (), first.position or ()) / (len(slices) - 1)
    lps[:3, 3] = first.position
    return np.asarray(LPS_TO_RAS @ lps)


def spacing_of(matrix: NDArray[Any]) -> Array:
    """Voxel size (3,) in mm along the axes of an affine."""
    return np.asarray(np.linalg.norm(matrix[:3, :3], axis=0))
