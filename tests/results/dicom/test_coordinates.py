"""A lesion at a known place is there in SR, SEG and Parametric Map, however the patient lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from tests.results.dicom import folders
from triage.results.dicom.build import write_objects
from triage.settings import Settings


def centroid(data: Dataset, frames: Any, weights: np.ndarray) -> np.ndarray:
    """Centre of what is not zero in mm (LPS+), by PS3.3 equation C.7.6.2.1-1 and nothing of ours.

    `frames`: (number of the frame, its functional groups); `weights`: (frame, row, column).
    """
    shared = data.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    total, mass = np.zeros(3), 0.0
    for number, groups in frames:
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(weights[number] > 0):
            point = origin + cosines[:3] * spacing[1] * column + cosines[3:] * spacing[0] * row
            total += point
            mass += 1
    return total / mass


def segment_centre(path: Path, label: str) -> np.ndarray:
    data = pydicom.dcmread(path)
    wanted = next(s.SegmentNumber for s in data.SegmentSequence if s.SegmentLabel == label)
    frames = [
        (i, groups)
        for i, groups in enumerate(data.PerFrameFunctionalGroupsSequence)
        if _segment(data, groups) == wanted
    ]
    pixels = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    return centroid(data, frames, pixels)


def _segment(data: Dataset, groups: Dataset) -> int:
    shared = data.SharedFunctionalGroupsSequence[0]
    where = groups if "SegmentIdentificationSequence" in groups else shared
    return int(where.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def map_centre(path: Path) -> np.ndarray:
    data = pydicom.dcmread(path)
    pixels = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    hot = (pixels > 0.6 * pixels.max()).astype(float)
    return centroid(data, enumerate(data.PerFrameFunctionalGroupsSequence), hot)


def reported_point(path: Path) -> np.ndarray:
    found = [item for item in pydicom.dcmread(path).iterall() if item.keyword == "GraphicData"]
    (point,) = found
    return np.array(point.value, float)


@pytest.mark.parametrize("pose", folders.POSES)
def test_the_lesion_is_where_it_is(pose: str, tmp_path: Path) -> None:
    case = folders.case(tmp_path, pose, pictures=False)
    kinds = frozenset({"sr", "seg", "pm"})
    assert write_objects(case.folder, case.images, Settings(), kinds=kinds)
    dicom = case.folder / "dicom"
    places = {
        "SR": reported_point(dicom / "sr.dcm"),
        "SEG hot spot": segment_centre(dicom / "seg_hot_spots_1.dcm", "hot spot: spleen"),
        "SEG organ": segment_centre(dicom / "seg_organs_1.dcm", "spleen"),
        "PM": map_centre(dicom / "pm_spleen.dcm"),
    }
    for name, place in places.items():
        off = float(np.abs(place - case.lesion_lps).max())
        assert off < 0.5, f"{name}: {off:.2f} mm off, a voxel is {case.voxel_mm} mm"


@pytest.mark.parametrize("pose", ["feet_first", "oblique"])
def test_frames_of_an_enhanced_ct_are_named_by_number(pose: str, tmp_path: Path) -> None:
    case = folders.case(tmp_path, pose, pictures=False, enhanced=True)
    write_objects(case.folder, case.images, Settings(), kinds=frozenset({"sr", "seg"}))
    dicom = case.folder / "dicom"
    (image,) = case.images.glob("*.dcm")
    source = pydicom.dcmread(image)
    seg = pydicom.dcmread(dicom / "seg_hot_spots_1.dcm")
    for groups in seg.PerFrameFunctionalGroupsSequence:
        derived = groups.DerivationImageSequence[0].SourceImageSequence[0]
        assert derived.ReferencedSOPInstanceUID == source.SOPInstanceUID
        frame = source.PerFrameFunctionalGroupsSequence[int(derived.ReferencedFrameNumber) - 1]
        np.testing.assert_allclose(
            np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float),
            np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float),
            atol=1e-3,
        )
    named = [
        e.value
        for e in pydicom.dcmread(dicom / "sr.dcm").iterall()
        if e.keyword == "ReferencedSOPInstanceUID"
    ]
    assert set(named) == {source.SOPInstanceUID}
    assert np.abs(reported_point(dicom / "sr.dcm") - case.lesion_lps).max() < 0.5
