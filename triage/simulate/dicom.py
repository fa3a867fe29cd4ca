"""Simulated studies as DICOM: CT Image Storage, classic, explicit VR little endian.

The header says that nobody was scanned: Manufacturer, ImageComments, SyntheticData, PatientName.
Modules follow PS3.3 A.3 (CT Image IOD).
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from triage import __version__
from triage.dicom.headers import SIMULATOR, made_up_uid
from triage.simulate.acquisition import Frame
from triage.simulate.fields import Dice
from triage.simulate.scanner import Scanner
from triage.types import Phase

COMMENT = "SIMULATED PATIENT - not a real person. Research use only - not for clinical use."
IMPLEMENTATION_UID = made_up_uid(SIMULATOR)
IMPLEMENTATION_NAME = "TRIAGE_SIM"


class Storage(NamedTuple):
    """How HU are stored. `padding`: stored value outside the circle of reconstruction, or None."""

    signed: bool
    bits: int
    intercept: int
    padding: int | None


# What scanners write: signed or unsigned, 12 or 16 bits, with or without padding.
STORAGES = (
    Storage(True, 16, -1024, -2000),
    Storage(True, 16, -1024, None),
    Storage(True, 16, 0, -2000),
    Storage(False, 12, -1024, None),
    Storage(False, 16, -8192, None),
)

CONTRAST = {
    Phase.ARTERIAL: "arterial phase",
    Phase.PORTAL_VENOUS: "portal venous phase",
    Phase.DELAYED: "delayed phase",
    Phase.PLAIN: "without contrast",
}


@dataclass(frozen=True)
class Identity:
    """Who and when, all made up. `key` names the patient and its settings: UIDs derive from it."""

    number: int
    key: str
    sex: str
    age: int
    when: datetime.datetime

    @staticmethod
    def draw(number: int, key: str, dice: Dice) -> Identity:
        day = datetime.datetime(2020, 1, 1) + datetime.timedelta(
            days=dice.integer(0, 2000), seconds=dice.integer(0, 86399)
        )
        age = int(np.clip(dice.rng.gamma(4.0, 6.0) + 18, 18, 89))
        return Identity(number, key, "M" if dice.chance(0.66) else "F", age, day)

    def uid(self, what: str) -> str:
        """2.25.<128 bit>, the same for the same patient and settings (PS3.5 B.2)."""
        return made_up_uid(f"{self.key} {what}")


@dataclass(frozen=True)
class Exam:
    """What is fixed before the first slice. `head_first`: instance 1 is the uppermost slice."""

    who: Identity
    frame: Frame
    scanner: Scanner
    phase: Phase
    storage: Storage
    head_first: bool

    def number(self, k: int) -> int:
        """InstanceNumber of slice `k` from the feet."""
        return self.frame.slices - k if self.head_first else k + 1


def header(exam: Exam, dice: Dice) -> Dataset:
    """All that the slices of the series share."""
    ds = Dataset()
    for values in (
        _patient(exam.who),
        _study(exam),
        _equipment(exam, dice),
        _pixels(exam.frame, exam.storage),
    ):
        for keyword, value in values.items():
            setattr(ds, keyword, value)
    if exam.phase is not Phase.PLAIN:
        ds.ContrastBolusAgent = "SIMULATED IODINE 350 MG/ML"
        ds.ContrastBolusRoute = "IV"
        ds.ContrastBolusVolume = str(dice.integer(80, 130))
    return ds


def _patient(who: Identity) -> dict[str, Any]:
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": CTImageStorage,
        "SyntheticData": "YES",
        "PatientName": f"SIMULATED^PATIENT {who.number}",
        "PatientID": f"SIM-{who.number}",
        "PatientBirthDate": "",
        "PatientSex": who.sex,
        "PatientAge": f"{who.age:03d}Y",
        "PatientComments": COMMENT,
    }


def _study(exam: Exam) -> dict[str, Any]:
    who = exam.who
    day, time = who.when.strftime("%Y%m%d"), who.when.strftime("%H%M%S")
    return {
        **{f"{what}Date": day for what in ("Study", "Series", "Acquisition", "Content")},
        **{f"{what}Time": time for what in ("Study", "Series", "Acquisition", "Content")},
        "StudyInstanceUID": who.uid("study"),
        "SeriesInstanceUID": who.uid("series"),
        "FrameOfReferenceUID": who.uid("frame of reference"),
        "PositionReferenceIndicator": "",
        "StudyID": "1",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "StudyDescription": "SIMULATED CT ABDOMEN AND PELVIS, TRAUMA",
        "SeriesDescription": f"Abdomen {CONTRAST[exam.phase]} {exam.frame.thickness_mm:g} mm",
        "ProtocolName": "SIMULATED TRAUMA",
        "SeriesNumber": "2",
        "AcquisitionNumber": "1",
        "Modality": "CT",
        "BodyPartExamined": "ABDOMEN",
        "PatientPosition": "HFS",
    }


def _equipment(exam: Exam, dice: Dice) -> dict[str, Any]:
    sharp = exam.scanner.psf_mm < 0.55
    current = dice.integer(120, 420)
    return {
        "Manufacturer": SIMULATOR,
        "ManufacturerModelName": "virtual scanner",
        "DeviceSerialNumber": "0",
        "SoftwareVersions": __version__,
        "ImageComments": COMMENT,
        "KVP": str(dice.rng.choice([100, 120, 120, 120])),
        "XRayTubeCurrent": str(current),
        "ExposureTime": "500",
        "Exposure": str(current // 2),
        "RotationDirection": "CW",
        "ConvolutionKernel": "MEDIUM SHARP" if sharp else "SOFT",
        "ReconstructionDiameter": f"{exam.frame.matrix * exam.frame.pixel_mm:.6g}",
        "GantryDetectorTilt": "0",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    }


def _pixels(frame: Frame, storage: Storage) -> dict[str, Any]:
    values: dict[str, Any] = {
        "PixelSpacing": [f"{frame.pixel_mm:.6g}"] * 2,
        "SliceThickness": f"{frame.thickness_mm:.6g}",
        "SpacingBetweenSlices": f"{frame.step_mm:.6g}",
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": frame.matrix,
        "Columns": frame.matrix,
        "BitsAllocated": 16,
        "BitsStored": storage.bits,
        "HighBit": storage.bits - 1,
        "PixelRepresentation": int(storage.signed),
        "RescaleIntercept": str(storage.intercept),
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "WindowCenter": "50",
        "WindowWidth": "400",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
    }
    if storage.padding is not None:
        values["PixelPaddingValue"] = storage.padding
    return values


def write_slice(folder: Path, base: Dataset, exam: Exam, k: int, hu: NDArray[np.int16]) -> None:
    """One instance: slice `k` from the feet, `hu` (row, column); padding outside the circle."""
    storage = exam.storage
    stored = hu.astype(np.int32) - storage.intercept
    if storage.padding is not None:
        stored[~exam.frame.circle.numpy()] = storage.padding
    x, y, z = exam.frame.affine[:3] @ (0, 0, k, 1)  # RAS+; DICOM counts to the left and the back
    base.SOPInstanceUID = exam.who.uid(f"slice {k}")
    base.InstanceNumber = str(exam.number(k))
    base.ImagePositionPatient = [f"{-x:.10g}", f"{-y:.10g}", f"{z:.10g}"]
    base.SliceLocation = f"{z:.10g}"
    base.PixelData = stored.astype("<i2" if storage.signed else "<u2").tobytes()
    base["PixelData"].VR = "OW"
    base.file_meta = _file_meta(base.SOPInstanceUID)
    dcmwrite(folder / f"{exam.number(k)}.dcm", base, enforce_file_format=True)


def _file_meta(sop_instance_uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    return meta
