"""Saliency as Parametric Map: float32, positive speaks for the finding, negative against.

On every n-th voxel of the slices, so that the map is as fine as the networks' own grid and not
finer, and cut to the box that is not zero: a map of a thin-slice CT stays at a few megabytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom import (
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
    VOILUTTransformation,
)
from highdicom.pm import ParametricMap, RealWorldValueMapping
from numpy.typing import NDArray
from pydicom import Dataset

from triage.results.dicom import codes
from triage.results.dicom.common import Analysis, coded, equipment, finished, in_series
from triage.results.dicom.frames import described, mend_frames
from triage.results.dicom.source import LPS_TO_RAS, Slices
from triage.types import DISCLAIMER, Target

FINE_MM = (3.0, 1.5, 1.5)  # slices, rows, columns of the networks' own grid


def parametric_map(
    slices: Slices, analysis: Analysis, target: Target, values: NDArray[np.float32], number: int
) -> Dataset | None:
    """The map of one target, `values` (slice, row, column) on the slices; None if it is empty."""
    steps, starts, part = _thinned(values, slices)
    if part is None:
        return None
    lps = LPS_TO_RAS @ slices.affine
    row_cosine, column_cosine = (lps[:3, i] / np.linalg.norm(lps[:3, i]) for i in (0, 1))
    spacing = np.linalg.norm(lps[:3, :3], axis=0)  # column, row, slice
    used = [starts[0] + steps[0] * k for k in range(len(part))]
    corners = [lps @ [starts[2], starts[1], k, 1.0] for k in used]
    low, high = float(part.min()), float(part.max())
    mapping = RealWorldValueMapping(
        lut_label="SALIENCY",
        lut_explanation=f"For (+) or against (-) {target.value}"[:64],
        unit=coded(codes.NO_UNITS),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coded(codes.SALIENCY),
    )
    image = ParametricMap(
        source_images=[described(slices, k) for k in used],
        pixel_array=part,
        real_world_value_mappings=[mapping],
        contains_recognizable_visual_features=False,
        voi_lut_transformations=[
            VOILUTTransformation(0.0, max(2 * max(abs(low), abs(high)), 1e-6))
        ],
        content_label="SALIENCY",
        content_description=f"{target.value}. {DISCLAIMER}"[:64],
        content_qualification="RESEARCH",
        pixel_measures=PixelMeasuresSequence(
            pixel_spacing=(spacing[1] * steps[1], spacing[0] * steps[2]),
            slice_thickness=spacing[2] * steps[0],
            spacing_between_slices=spacing[2] * steps[0],
        ),
        plane_orientation=PlaneOrientationSequence("PATIENT", [*row_cosine, *column_cosine]),
        plane_positions=[PlanePositionSequence("PATIENT", tuple(c[:3])) for c in corners],
        derivation=coded(codes.SALIENCY),
        **in_series(analysis, "pm", number),
        **equipment(analysis),
    )
    mend_frames(image, slices)
    image.BodyPartExamined = "ABDOMEN"
    image.BurnedInAnnotation = "NO"
    return finished(image, analysis)


def _thinned(
    values: NDArray[np.float32], slices: Slices
) -> tuple[tuple[int, ...], tuple[int, ...], Any]:
    """Steps and first voxel along each axis, and the map there; None where all is zero."""
    spacing = np.linalg.norm(slices.affine[:3, :3], axis=0)[::-1]  # slice, row, column
    steps = tuple(
        max(1, int(fine / own + 0.01)) for fine, own in zip(FINE_MM, spacing, strict=True)
    )
    where = np.nonzero(values)
    if not where[0].size:
        return steps, (0, 0, 0), None
    starts = tuple(int(axis.min()) for axis in where)
    stops = tuple(int(axis.max()) + 1 for axis in where)
    box = tuple(slice(a, b, s) for a, b, s in zip(starts, stops, steps, strict=True))
    part = np.ascontiguousarray(values[box], dtype=np.float32)
    return steps, starts, part if part.any() else None
