"""Headers of DICOM files, read in a child process: one `Slice` an image plane.

The patient's identity stays in the child: a slice carries a digest of it, which is enough to tell
patients apart.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..reasons import NotAnalysed
from . import dataset
from .syntax import CT_CLASSES, DICOMDIR_CLASS, SYNTAXES

Numbers = tuple[float, ...] | None

SIMULATOR = "trauma-ct-triage simulator"

_FACTS = (
    *("Modality", "PatientAge", "PatientSex", "BodyPartExamined", "Manufacturer", "StudyDate"),
    *("ManufacturerModelName", "SeriesDescription", "StudyDescription", "ProtocolName"),
    *("ConvolutionKernel", "KVP", "ContrastBolusAgent", "PatientPosition", "SeriesNumber"),
    *("ImageType", "SliceThickness"),
)

# Suffixes of files that call themselves DICOM; others without the magic word are no part of it.
DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}


@dataclass(frozen=True, slots=True)
class Slice:
    """One image plane as its header describes it: a classic CT instance, or a frame of Enhanced CT.

    Missing values are None; numbers that cannot be parsed are NaN. Lengths in mm. `pixel_offset`
    counts from the start of the data set's bytes (`dataset.body`).
    """

    path: str
    file_bytes: int
    modified_ns: int
    syntax: str
    sop_class: str
    sop_instance: str
    study: str
    series: str
    frame_of_reference: str
    patient: str  # digest of identifier, name and birth date
    modality: str
    image_type: tuple[str, ...]
    frame: int
    frames: int
    rows: int | None
    columns: int | None
    samples: int | None
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    signed: int | None
    photometric: str
    padding: int | None  # stored value as unsigned bits
    padding_limit: int | None
    slope: Numbers
    intercept: Numbers
    rescale_type: str
    lossy: bool
    position: Numbers
    orientation: Numbers
    spacing: Numbers
    thickness: Numbers
    instance_number: int | None
    acquisition_number: int | None
    age_years: float | None
    simulated: bool
    pixel_offset: int | None
    pixel_length: int | None
    body_length: int
    facts: dict[str, Any]
    deidentified: bool = False  # all UIDs were blank, the file's own were taken


def from_rows(rows: list[dict[str, Any]]) -> list[Slice]:
    """The slices of the child's answer."""
    slices = []
    for row in rows:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        slices.append(Slice(**fields))
    return slices


# ---- in the child


def read_headers(request: dict[str, Any], _out: mmap.mmap | None) -> dict[str, Any]:
    """Task of the child. Request: `paths`, `max_bytes`, `max_slices`.

    Answer: `slices` (rows of CT images), `others` (modality or class of each other object),
    `skipped` (number of files that are not DICOM), `damaged` ([name, code, detail] of files that
    call themselves DICOM and cannot be read).
    """
    answer: dict[str, Any] = {"slices": [], "others": [], "skipped": 0, "damaged": []}
    for name in request["paths"]:
        path = Path(name)
        try:
            _read_one(path, request, answer)
        except NotAnalysed as error:
            answer["damaged"].append([path.name, error.code, error.detail])
        except OSError as error:
            answer["damaged"].append([path.name, "UNREADABLE", f"{type(error).__name__}"])
        if len(answer["slices"]) > 8 * request["max_slices"]:
            raise NotAnalysed("TOO_LARGE", f"more than {8 * request['max_slices']} images")
    return answer


def _read_one(path: Path, request: dict[str, Any], answer: dict[str, Any]) -> None:
    status = path.stat()
    with path.open("rb") as file:
        head = file.read(132)
        if not dataset.is_dicom(head):
            if path.suffix.lower() in DICOM_SUFFIXES or len(request["paths"]) == 1:
                raise dataset.unreadable("not a DICOM file")
            answer["skipped"] += 1
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            kind = _media_class(data)
            if kind == DICOMDIR_CLASS:
                answer["skipped"] += 1
                return
            try:
                found, encoding = dataset.read(data, request["max_bytes"])
            except NotAnalysed:
                if kind and kind not in CT_CLASSES:
                    answer["others"].append(kind)  # damaged, but no CT image anyway
                    return
                raise
    if not (found or kind):
        raise dataset.unreadable("the file holds no object")
    if not _is_ct(found, encoding):
        answer["others"].append(found.get("Modality") or found.get("SOPClassUID") or "unknown")
        return
    common = _common(found, encoding) | {
        "path": str(path),
        "file_bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
    }
    answer["slices"] += _planes(common, found, request["max_slices"])


def _media_class(data: dataset.Buffer) -> str:
    try:
        return dataset.read_meta(data)[0].get("MediaStorageSOPClassUID", "")
    except (NotAnalysed, ValueError, IndexError, struct.error):
        return ""


def _is_ct(found: dict[str, Any], encoding: dict[str, Any]) -> bool:
    kind = found.get("SOPClassUID") or encoding.get("MediaStorageSOPClassUID", "")
    return kind in CT_CLASSES and found.get("Modality", "CT") in ("CT", "")


def _common(found: dict[str, Any], encoding: dict[str, Any]) -> dict[str, Any]:
    """What all frames of one file share, as fields of `Slice`."""
    get = found.get
    return {
        **identifiers(found, encoding),
        "syntax": encoding.get("TransferSyntaxUID", ""),
        "pixel_offset": encoding["pixel_offset"],
        "pixel_length": encoding["pixel_length"],
        "body_length": encoding["body_length"],
        "frame_of_reference": get("FrameOfReferenceUID", ""),
        "patient": _patient(found),
        "modality": get("Modality", ""),
        "rows": get("Rows"),
        "columns": get("Columns"),
        "samples": get("SamplesPerPixel"),
        "bits_allocated": get("BitsAllocated"),
        "bits_stored": get("BitsStored"),
        "high_bit": get("HighBit"),
        "signed": get("PixelRepresentation"),
        "photometric": get("PhotometricInterpretation", ""),
        "padding": get("PixelPaddingValue"),
        "padding_limit": get("PixelPaddingRangeLimit"),
        "lossy": get("LossyImageCompression") == "01" or _lossy(encoding),
        "instance_number": get("InstanceNumber"),
        "age_years": _age_years(found),
        "simulated": get("Manufacturer") == SIMULATOR
        and "SIMULATED PATIENT" in get("ImageComments", ""),
        "facts": _facts(found),
    }


def _lossy(encoding: dict[str, Any]) -> bool:
    syntax = SYNTAXES.get(encoding.get("TransferSyntaxUID", ""))
    return syntax is not None and syntax.lossy


def identifiers(found: dict[str, Any], encoding: dict[str, Any]) -> dict[str, Any]:
    """UIDs; where a de-identification blanked all of them, those of the file meta information.

    Study and series are then named after the frame of reference, which blanking leaves alone.
    One blank UID among others is a fault and stays one.
    """
    names = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    sop_class, sop, study, series = (found.get(name, "") for name in names)
    frame = found.get("FrameOfReferenceUID", "")
    media = encoding.get("MediaStorageSOPInstanceUID", "")
    blank = not (sop_class or sop or study or series) and bool(frame and media)
    if blank:
        sop_class, sop = encoding.get("MediaStorageSOPClassUID", ""), media
        study, series = made_up_uid(f"study {frame}"), made_up_uid(f"series {frame}")
    return {
        "sop_class": sop_class,
        "sop_instance": sop,
        "study": study,
        "series": series,
        "deidentified": blank,
    }


def made_up_uid(seed: str) -> str:
    """A UID of the form 2.25.<integer> (PS3.5 annex B.2), always the same for the same seed."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "big")
    return f"2.25.{number}"


def _patient(found: dict[str, Any]) -> str:
    name = " ".join(re.split(r"[\s^=]+", found.get("PatientName", "").casefold())).strip()
    parts = (found.get("PatientID", ""), name, found.get("PatientBirthDate", ""))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


_AGE_UNIT_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


def _age_years(found: dict[str, Any]) -> float | None:
    """PatientAge (PS3.5 6.2, AS), else the time from birth to the acquisition; None if unknown."""
    age = re.fullmatch(r"(\d{3})([DWMY])", found.get("PatientAge", ""))
    if age:
        return int(age[1]) * _AGE_UNIT_YEARS[age[2]]
    dates = [found.get(k, "") for k in ("PatientBirthDate", "AcquisitionDate", "StudyDate")]
    birth, *exams = [re.fullmatch(r"(\d{4})(\d\d)(\d\d)", date) for date in dates]
    exam = next((e for e in exams if e), None)
    if not birth or not exam:
        return None
    years = [int(m[1]) + (int(m[2]) - 1) / 12 + (int(m[3]) - 1) / 365.25 for m in (birth, exam)]
    return years[1] - years[0]


def _facts(found: dict[str, Any]) -> dict[str, Any]:
    utf8 = "ISO_IR 192" in found.get("SpecificCharacterSet", "")
    facts = {}
    for name in _FACTS:
        value = found.get(name)
        if value not in (None, "", []):
            facts[name] = _text(value, utf8) if isinstance(value, str) else value
    return facts


def _text(value: str, utf8: bool) -> str:
    """Printable text of at most 64 characters (PS3.5 6.2, LO)."""
    if utf8:
        value = value.encode("latin-1").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in value[:64])


def _planes(common: dict[str, Any], found: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """The rows of `Slice` of one file: one, or one a frame from functional groups (C.7.6.16)."""
    shared = (found.get("SharedFunctionalGroupsSequence") or [{}])[0]
    groups = found.get("PerFrameFunctionalGroupsSequence")
    frames = found.get("NumberOfFrames")
    frames = 1 if frames is None else frames
    if groups is None and not shared:
        return [_plane(common, [found], 0, frames)]
    if frames > limit:
        raise NotAnalysed("TOO_LARGE", f"{frames} frames, at most {limit} are allowed")
    groups = groups or []
    if frames < 1 or len(groups) != frames:
        raise NotAnalysed("BAD_DIMENSIONS", f"{frames} frames, but {len(groups)} are described")
    return [_plane(common, [group, shared, found], i, frames) for i, group in enumerate(groups)]


def _plane(
    common: dict[str, Any], sources: list[dict[str, Any]], frame: int, frames: int
) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for source in reversed(sources):
        flat |= source
        for value in source.values():
            if isinstance(value, list) and value and isinstance(value[0], dict) and len(value) == 1:
                flat |= value[0]
    return common | {
        "frame": frame,
        "frames": frames,
        "image_type": flat.get("FrameType") or flat.get("ImageType") or [],
        "position": flat.get("ImagePositionPatient"),
        "orientation": flat.get("ImageOrientationPatient"),
        "spacing": flat.get("PixelSpacing"),
        "thickness": flat.get("SliceThickness"),
        "slope": flat.get("RescaleSlope"),
        "intercept": flat.get("RescaleIntercept"),
        "rescale_type": flat.get("RescaleType", ""),
        "acquisition_number": flat.get("FrameAcquisitionNumber", flat.get("AcquisitionNumber")),
    }
