"""PS3.15 annex E, Table E.1-1: what the Basic Application Level Confidentiality Profile does to
each attribute, and what is made of it for a CT image.

The table itself is `confidentiality_profile.txt`. Actions (PS3.15 Table E.1-1a): X remove, Z empty
(or a dummy), D a dummy, U another UID, consistent everywhere; X/Z/D and the like: the first one
that the object can bear. Column two is the option Retain Longitudinal Temporal Information with
Modified Dates: C means that the date may stay, shifted.

What stays is a list as well (`KEPT`): an attribute that is neither in the profile nor on it goes,
too. So no text that somebody typed survives, known to the standard or not.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

# PS3.16 CID 7050, coding scheme DCM.
BASIC_PROFILE = ("113100", "Basic Application Confidentiality Profile")
MODIFIED_DATES = (
    "113107",
    "Retain Longitudinal Temporal Information Modified Dates Option",
)


class Rule(NamedTuple):
    """One row: actions in the order in which they are tried, and whether a date may stay."""

    actions: tuple[str, ...]
    dates: bool


@cache
def profile() -> dict[int, Rule]:
    """Tag -> rule. Private attributes, curves (50xx) and overlays (60xx) go in any case."""
    text = files(__package__).joinpath("confidentiality_profile.txt").read_text("ascii")
    rules = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            tag, action, dates, _ = line.split()
            rules[int(tag.replace(",", ""), 16)] = Rule(tuple(action.split("/")), dates == "C")
    return rules


# Type 2 attributes of the mandatory modules of the CT Image IOD (PS3.3 A.3): always there, empty
# where nothing may be said.
TYPE_2: tuple[str, ...] = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "Manufacturer",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "KVP",
    "StudyID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "PositionReferenceIndicator",
    "SliceThickness",
    "PatientPosition",
    "Laterality",
)
# Without these an image is of no use: type 1, and what the program reads.
NEEDED: tuple[str, ...] = (
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleIntercept", "RescaleSlope", "Modality"),
)
# Type 2C, or type 2 of an optional module: emptied where the image has them.
TYPE_2C: tuple[str, ...] = ("ContentDate", "ContentTime", "ContrastBolusAgent")

NUMBER = re.compile(r"[+-]?(\d{1,12}(\.\d{0,16})?|\.\d{1,16})([eE][+-]?\d{1,3})?")
# A kernel's name as scanners write it: B30f, Br40d\3, FC08, STANDARD.
KERNEL = re.compile(
    r"[A-Z][A-Za-z]?\d{2}[a-z]?|FC\d{2}|[1-9]|STANDARD|SOFT|BONE|DETAIL|LUNG|EDGE|MEDIUM SHARP"
)
VENDORS = (
    *("SIEMENS", "Siemens", "Siemens Healthineers", "GE MEDICAL SYSTEMS", "GE Healthcare"),
    *("Philips", "Philips Medical Systems", "Philips Healthcare", "PHILIPS", "TOSHIBA"),
    *("CANON_MEC", "Canon Medical Systems", "Hitachi Medical Corporation", "HITACHI", "FUJIFILM"),
    *("NeuSoft Medical Systems", "Neusoft", "UIH", "SAMSUNG"),
)
BODY_PARTS = (
    *("ABDOMEN", "ABDOMENPELVIS", "PELVIS", "CHEST", "CHESTABDPELVIS", "CHESTABDOMEN", "TRUNK"),
    *("WHOLEBODY", "LIVER", "KIDNEY", "SPLEEN", "LSPINE", "TSPINE", "HEAD", "NECK"),
)
POSITIONS = tuple(f"{end}F{side}" for end in "HF" for side in ("S", "P", "DR", "DL"))
LOSSY_METHODS = ("ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_15444_15")

# What stays as it is, and only if it fits: a number (DS, IS, FD), or one of
# these terms. Of a value that does not fit nothing stays.
KEPT: dict[str, re.Pattern[str] | tuple[str, ...]] = {
    "Modality": ("CT",),
    "Manufacturer": VENDORS,
    "BodyPartExamined": BODY_PARTS,
    "PatientPosition": POSITIONS,
    "ConvolutionKernel": KERNEL,
    "RotationDirection": ("CW", "CC"),
    "RescaleType": ("HU",),
    "BurnedInAnnotation": ("NO",),
    "LossyImageCompression": ("00", "01"),
    "LossyImageCompressionMethod": LOSSY_METHODS,
    **dict.fromkeys(
        (
            *("SliceThickness", "SpacingBetweenSlices", "KVP", "DataCollectionDiameter"),
            *("ReconstructionDiameter", "DistanceSourceToDetector", "DistanceSourceToPatient"),
            *("GantryDetectorTilt", "TableHeight", "ExposureTime", "XRayTubeCurrent", "Exposure"),
            *("GeneratorPower", "FocalSpots", "RevolutionTime", "SingleCollimationWidth"),
            *("TotalCollimationWidth", "TableSpeed", "TableFeedPerRotation", "SpiralPitchFactor"),
            *("CTDIvol", "LossyImageCompressionRatio", "SeriesNumber", "AcquisitionNumber"),
            *("InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient"),
            *("SliceLocation", "PixelSpacing", "WindowCenter", "WindowWidth"),
            *("RescaleIntercept", "RescaleSlope"),
        ),
        NUMBER,
    ),
}
# ImageType by place (PS3.3 C.8.2.1.1.1); further values are the vendor's own words, and go.
IMAGE_TYPE = (("ORIGINAL", "DERIVED"), ("PRIMARY", "SECONDARY"), ("AXIAL",))
