"""Small CT instances for the tests of the intake, encoded quickly: one template, many copies."""

from __future__ import annotations

import io
from functools import lru_cache

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.8.498.77"


def ct(study: int = 1, series: int = 1, number: int = 1, side: int = 16, **header: object) -> bytes:
    """One CT slice of `side` x `side` pixels as a DICOM file; `header`: attributes by keyword."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CT, sop_uid(study, series, number)
    data.StudyInstanceUID, data.SeriesInstanceUID = study_uid(study), f"{ROOT}.{study}.{series}"
    data.Modality, data.PatientID, data.PatientName = "CT", f"P{study}", f"TEST^P{study}"
    data.PatientAge, data.PatientSex, data.StudyDate = "045Y", "F", "20261121"
    data.AccessionNumber, data.SeriesNumber, data.InstanceNumber = f"A{study}", series, number
    data.ImageType, data.ImageOrientationPatient = (
        ["ORIGINAL", "PRIMARY", "AXIAL"],
        [1, 0, 0, 0, 1, 0],
    )
    data.ImagePositionPatient, data.PixelSpacing = [0, 0, 5 * number], [0.8, 0.8]
    data.SliceThickness, data.FrameOfReferenceUID = 5, f"{ROOT}.{study}.9"
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
    data.Rows = data.Columns = side
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation, data.SamplesPerPixel = 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = _pixels(side, number)
    for keyword, value in header.items():
        setattr(data, keyword, value)
    return encoded(data)


def encoded(data: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = data.get("SOPClassUID", CT)
    meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID", f"{ROOT}.0")
    data.file_meta = meta
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def study_uid(study: int) -> str:
    return f"{ROOT}.{study}"


def sop_uid(study: int, series: int, number: int) -> str:
    return f"{ROOT}.{study}.{series}.{number}"


@lru_cache(maxsize=64)
def _pixels(side: int, number: int) -> bytes:
    return bytes([number % 251, 4]) * (side * side)
