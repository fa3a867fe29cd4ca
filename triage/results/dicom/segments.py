"""Organs and hot spots as binary Segmentation on the scanner's own slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset

from triage import __version__
from triage.results.dicom import codes
from triage.results.dicom.common import MODEL, Analysis, coded, equipment, finished, in_series
from triage.results.dicom.frames import described, mend_frames
from triage.results.dicom.source import Slices
from triage.types import DISCLAIMER, ORGAN_LABEL, Organ, Target

# L* a* b* (PS3.3 C.10.7.1.1): organs pale, hot spots red.
COLOURS: dict[Organ, tuple[float, float, float]] = {
    Organ.LIVER: (50.0, 35.0, 25.0),
    Organ.SPLEEN: (48.0, 30.0, -30.0),
    Organ.KIDNEY_RIGHT: (65.0, 15.0, 35.0),
    Organ.KIDNEY_LEFT: (65.0, 15.0, 35.0),
    Organ.BOWEL: (75.0, -5.0, 40.0),
    Organ.AORTA: (55.0, 50.0, 20.0),
    Organ.SPINE: (85.0, 0.0, 12.0),
}
HOT_COLOUR = (55.0, 75.0, 60.0)
_SIDE = {Organ.KIDNEY_RIGHT: "right", Organ.KIDNEY_LEFT: "left"}


def organ_segments(
    slices: Slices, analysis: Analysis, labels: NDArray[np.uint8], number: int
) -> Dataset | None:
    """SEG of the organs that were found. `labels` (slice, row, column): values of ORGAN_LABEL."""
    there = [organ for organ in Organ if (labels == ORGAN_LABEL[organ]).any()]
    if not there:
        return None
    numbered = np.zeros(256, dtype=np.uint8)
    for i, organ in enumerate(there, start=1):
        numbered[ORGAN_LABEL[organ]] = i
    descriptions = [_organ(analysis, organ, i) for i, organ in enumerate(there, start=1)]
    text = "Organs as the program saw them"
    return _segmentation(slices, analysis, numbered[labels], descriptions, number, "ORGANS", text)


def spot_segments(
    slices: Slices, analysis: Analysis, spots: Mapping[Target, NDArray[np.bool_]], number: int
) -> Dataset | None:
    """SEG of the hottest spots of suspected targets (they may overlap), in the order given."""
    if not spots:
        return None
    stacked = np.stack([mask.astype(np.uint8) for mask in spots.values()], axis=-1)
    descriptions = [_spot(analysis, target, i) for i, target in enumerate(spots, start=1)]
    text = "Spots that spoke most for a finding"
    return _segmentation(slices, analysis, stacked, descriptions, number, "HOT_SPOTS", text)


def _segmentation(
    slices: Slices,
    analysis: Analysis,
    pixels: NDArray[np.uint8],
    descriptions: list[Any],
    number: int,
    name: str,
    text: str,
) -> Dataset:
    used = np.flatnonzero(pixels.any(axis=tuple(range(1, pixels.ndim))))
    part = pixels[used[0] : used[-1] + 1]
    image = Segmentation(
        source_images=[described(slices, int(k)) for k in range(used[0], used[-1] + 1)],
        pixel_array=part,
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        content_label=name,
        content_description=f"{text[:20]}. {DISCLAIMER}"[:64],
        omit_empty_frames=True,
        **in_series(analysis, "seg", number),
        **equipment(analysis),
    )
    mend_frames(image, slices)
    image.BodyPartExamined = "ABDOMEN"
    image.BurnedInAnnotation = "NO"
    return finished(image, analysis)


def _organ(analysis: Analysis, organ: Organ, number: int) -> Any:
    side = _SIDE.get(organ)
    description = _description(
        analysis,
        number,
        organ.value.replace("_", " "),
        codes.ANATOMY,
        codes.ORGANS[organ],
        COLOURS[organ],
    )
    if side:
        modifier = coded(codes.SIDES[side])
        description.SegmentedPropertyTypeCodeSequence[
            0
        ].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description


def _spot(analysis: Analysis, target: Target, number: int) -> Any:
    return _description(
        analysis,
        number,
        f"hot spot: {target.value}",
        codes.ABNORMAL,
        codes.HOT_SPOT,
        HOT_COLOUR,
        anatomic_regions=[coded(codes.SITES[target])],
        tracking_uid=analysis.uid(f"tracking {target.value}"),
        tracking_id=f"{target.value} hot spot",
    )


def _description(
    analysis: Analysis,
    number: int,
    name: str,
    category: codes.Code,
    kind: codes.Code,
    colour: tuple[float, float, float],
    **more: Any,
) -> Any:
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=coded(category),
        segmented_property_type=coded(kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=MODEL,
            family=coded(codes.AI),
            version=__version__,
            parameters={"bundle sha256": analysis.sha256},
        ),
        display_color=CIELabColor(*colour),
        **more,
    )
