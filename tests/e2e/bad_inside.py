"""A good study with the identity of a malformed case: what is wrong then lies inside it."""

from __future__ import annotations

import io
import zlib
from functools import lru_cache

import pydicom
from pydicom.dataset import FileDataset

from tests.e2e.bad_cases import GOOD, UID, Case
from triage.reasons import NotAnalysed
from triage.service.intake.header import Header, read_header


def inside(case: Case) -> list[bytes]:
    """The files of the case and all slices of a good study of the same patient, study and series.

    Empty where a case has no identity that a study could have: no header, or UIDs that are none.
    """
    header = identity(case)
    if header is None:
        return []
    return [*_good_as(header), *case.files()]


def identity(case: Case) -> Header | None:
    """The first header of the case with UIDs that are some; None: nothing of it can be inside."""
    for data in case.files():
        try:
            header = read_header(data)
        except NotAnalysed:
            continue
        uids = (header.study_instance_uid, header.series_instance_uid)
        if all(len(uid) <= 64 and UID.fullmatch(uid) for uid in uids):
            return header
    return None


@lru_cache(maxsize=1)
def _good() -> tuple[FileDataset, ...]:
    return tuple(pydicom.dcmread(path) for path in sorted(GOOD.rglob("*.dcm")))


def _good_as(header: Header) -> list[bytes]:
    """The good slices with this identity; they must be readable, whatever the names are."""
    found, frame = [], f"2.25.{zlib.crc32(header.study_instance_uid.encode())}"
    for number, data in enumerate(_good(), start=1):
        data.SpecificCharacterSet = "ISO_IR 192"
        data.StudyInstanceUID = header.study_instance_uid
        data.SeriesInstanceUID = header.series_instance_uid
        data.FrameOfReferenceUID = frame
        data.SOPInstanceUID = f"{frame}.{number}"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.PatientID = header.patient_id
        data.PatientName = header.patient_name
        data.PatientBirthDate = header.patient_birth_date
        data.PatientSex = header.patient_sex
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, data)  # warns of values that PS3.5 forbids
        found.append(buffer.getvalue())
    return found
