"""Key slices with their overlay as Secondary Capture: what any viewer shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from highdicom.sc import SCImage
from PIL import Image
from pydicom import Dataset

from triage.results.dicom import codes, words
from triage.results.dicom.common import Analysis, equipment, finished, in_series
from triage.results.dicom.source import Source, study_header
from triage.types import DISCLAIMER, TARGETS, Target

SHEET = "overlays/contact_sheet.png"
_MAX_SIDE = 4096


def captures(
    source: Source, analysis: Analysis, folder: Path
) -> dict[tuple[Target | None, int], Dataset]:
    """(target, rank) -> capture; (None, 0) is the page with all targets. Ranks count from 0."""
    found: dict[tuple[Target | None, int], Dataset] = {}
    for number, (target, rank, name) in enumerate(_pictures(analysis, folder), start=1):
        with Image.open(folder / name) as picture:
            if max(picture.size) > _MAX_SIDE:
                raise ValueError(f"Expected a picture of at most {_MAX_SIDE} pixels")
            pixels = np.asarray(picture.convert("RGB"))  # (rows, columns, 3)
        found[target, rank] = _capture(source, analysis, pixels, number, target, rank)
    return found


def _pictures(analysis: Analysis, folder: Path) -> Iterator[tuple[Target | None, int, str]]:
    if (folder / SHEET).is_file():
        yield None, 0, SHEET
    answers = analysis.report.get("targets") or {}
    for target in TARGETS:
        names = (answers.get(target.value) or {}).get("overlays") or ()
        for rank, name in enumerate(names):
            path = folder / name
            if ".." not in Path(name).parts and path.is_file():
                yield target, rank, name


def _capture(
    source: Source,
    analysis: Analysis,
    pixels: np.ndarray[Any, np.dtype[np.uint8]],
    number: int,
    target: Target | None,
    rank: int,
) -> Dataset:
    header = source.any_header
    image = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=header.StudyInstanceUID,
        patient_id=header.PatientID,
        patient_name=header.PatientName,
        patient_birth_date=header.PatientBirthDate,
        patient_sex=header.PatientSex or None,
        accession_number=header.AccessionNumber,
        study_id=header.StudyID,
        study_date=header.StudyDate or None,
        study_time=header.StudyTime or None,
        referring_physician_name=header.ReferringPhysicianName,
        patient_orientation=("L", "P"),
        specific_character_set="ISO_IR 192",
        **in_series(analysis, "sc", number),
        **equipment(analysis),
    )
    image.copy_patient_and_study_information(study_header(source.identity))
    if target is None:
        image.PatientOrientation = ""
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.BodyPartExamined = "ABDOMEN"
    image.BurnedInAnnotation = "YES"
    image.RecognizableVisualFeatures = "NO"
    image.LossyImageCompression = "00"
    image.ImageComments = f"{DISCLAIMER}. {_title(analysis, target)}"
    image.DerivationDescription = "Slice with overlay of the saliency, drawn by the program"
    if (slice_ := _slice_of(source, analysis, target, rank)) is not None:
        image.SourceImageSequence = [slice_]
    return finished(image, analysis)


def _title(analysis: Analysis, target: Target | None) -> str:
    if target is None:
        return "All targets on one page"
    answer = analysis.report["targets"][target.value]
    return f"{codes.FINDINGS[target].meaning}. {words.certificate(analysis, answer)}"


def _slice_of(
    source: Source, analysis: Analysis, target: Target | None, rank: int
) -> Dataset | None:
    """Reference to the slice that a capture shows."""
    if target is None:
        return None
    answer = analysis.report["targets"][target.value]
    slices = source.series.get(str(answer.get("series_instance_uid")))
    keys = answer.get("key_slices") or ()
    if slices is None or rank >= len(keys):
        return None
    item = slices.slices[slices.at(int(keys[rank]["index"]))]
    reference = Dataset()
    reference.ReferencedSOPClassUID = item.sop_class
    reference.ReferencedSOPInstanceUID = item.sop_instance
    if item.frames > 1:
        reference.ReferencedFrameNumber = item.frame + 1
    return reference
