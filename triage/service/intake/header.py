"""The header of one incoming file: who, which study, which image. No pixel is looked at.

The gate's own strict walker reads it (`dicom.dataset`): standard library only, every length held
against the data, nesting counted. It stops behind group 0020, and no more than `MAX_HEADER` bytes
are walked or inflated, so that a header costs milliseconds whatever it claims. What lies behind is
judged by the gate in its child process, when the study is analysed.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from triage.dicom import dataset
from triage.dicom.headers import identifiers, made_up_uid
from triage.dicom.syntax import DICOMDIR_CLASS, SYNTAXES, Syntax
from triage.results.dicom.codes import PROGRAM
from triage.service.intake.charset import clean, decoded

MAX_HEADER = 4 << 20
OUR_MODALITIES = frozenset({"SR", "SEG", "OT", "KO"})  # of our results; never CT
_LAST_TAG = 0x0020FFFF
_MAX_EXPECTED = 1_000_000

# Attribute: tag -> (keyword, how to read it), beside those of the gate (PS3.6 chapter 6).
_MORE: dict[int, tuple[str, str]] = {
    0x00080050: ("AccessionNumber", "t"),
    0x00201208: ("NumberOfStudyRelatedInstances", "i"),
    0x00201209: ("NumberOfSeriesRelatedInstances", "i"),
}
_WANTED = {
    keyword: (keyword, kind)
    for keyword, kind in [*dataset.ATTRIBUTES.values(), *_MORE.values()]
    if kind in "tiT"
}
_ATTRIBUTES = {
    tag: entry
    for tag, entry in {**dataset.ATTRIBUTES, **_MORE}.items()
    if tag <= _LAST_TAG and entry[0] in _WANTED
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the intake needs of one file. Text is clean, UIDs are as written."""

    sop_instance_uid: str  # "" if it has none: the gate will refuse its study (BAD_UID)
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    start: int  # byte at which the data set begins
    patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    accession_number: str = ""
    study_description: str = ""
    study_date: str = ""
    modality: str = ""
    manufacturer: str = ""
    series_number: int | None = None
    series_description: str = ""
    body_part: str = ""
    expected_in_study: int | None = None
    expected_in_series: int | None = None

    @property
    def is_directory(self) -> bool:
        """A DICOMDIR describes a medium and is no image."""
        return self.sop_class_uid == DICOMDIR_CLASS

    @property
    def is_ours(self) -> bool:
        """A result that we made, on its way back: taken as an image, it would be analysed anew,
        which makes new results, and so on."""
        return self.manufacturer == PROGRAM and self.modality in OUR_MODALITIES


def read_header(data: bytes | mmap.mmap) -> Header:
    """The header of a DICOM file. Raises NotAnalysed: UNREADABLE."""
    try:
        meta, start = dataset.read_meta(data)
        found = _walk(data, start, meta.get("TransferSyntaxUID", ""))
    except (struct.error, IndexError, RecursionError, ValueError):
        raise dataset.unreadable("the file ends inside an element") from None
    return _header(found, meta, start)


def _walk(data: bytes | mmap.mmap, start: int, uid: str) -> dict[str, Any]:
    syntax = SYNTAXES.get(uid, Syntax("unknown"))
    content, at = data, start
    end = min(len(data), start + MAX_HEADER)
    if syntax.deflated:
        content, at = _inflated(data[start:end]), 0
        end = len(content)
    walker = dataset.Walker(
        content, syntax.explicit, syntax.big_endian, attributes=_ATTRIBUTES, last_tag=_LAST_TAG
    )
    found, _ = walker.walk(at, end)
    return found


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, MAX_HEADER)
    except zlib.error as error:
        raise dataset.unreadable(f"deflated data are damaged: {error}") from None


def _header(found: dict[str, Any], meta: dict[str, str], start: int) -> Header:
    uids = identifiers(found, meta)
    text = {key: clean(str(value)) for key, value in uids.items()}
    media = clean(meta.get("MediaStorageSOPInstanceUID", ""))
    if not found or not (text["sop_instance"] or media or text["study"] or text["series"]):
        raise dataset.unreadable("the file holds no object")
    characters = found.get("SpecificCharacterSet", "")

    def get(name: str) -> str:
        return decoded(str(found.get(name) or "").encode("latin-1", "replace"), characters)

    # A study without a UID must still be seen: the gate then says what is wrong with it.
    nameless = made_up_uid(f"no study UID, series {text['series']}, patient {get('PatientID')}")
    return Header(
        sop_instance_uid=text["sop_instance"] or media,
        sop_class_uid=text["sop_class"] or clean(meta.get("MediaStorageSOPClassUID", "")),
        study_instance_uid=text["study"] or nameless,
        series_instance_uid=text["series"],
        transfer_syntax_uid=clean(meta.get("TransferSyntaxUID", "")),
        start=start,
        patient_id=get("PatientID"),
        patient_name=get("PatientName"),
        patient_birth_date=get("PatientBirthDate"),
        patient_sex=get("PatientSex"),
        patient_age=get("PatientAge"),
        accession_number=get("AccessionNumber"),
        study_description=get("StudyDescription"),
        study_date=get("StudyDate"),
        modality=get("Modality"),
        manufacturer=get("Manufacturer"),
        series_number=found.get("SeriesNumber"),
        series_description=get("SeriesDescription"),
        body_part=get("BodyPartExamined"),
        expected_in_study=_expected(found.get("NumberOfStudyRelatedInstances")),
        expected_in_series=_expected(found.get("NumberOfSeriesRelatedInstances")),
    )


def _expected(number: int | None) -> int | None:
    return number if number is not None and 0 < number <= _MAX_EXPECTED else None
