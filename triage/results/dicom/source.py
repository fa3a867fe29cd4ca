"""What the objects are about: study and slices, from the gate and the cleaned identity.

No attribute is taken from a file as it is. `Slices.headers` are data sets made here that hold just
what highdicom copies and refers to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from triage.dicom import open_study
from triage.dicom.headers import Slice
from triage.dicom.identity import Identity, read_identity
from triage.dicom.series import GatedSeries
from triage.reasons import NotAnalysed

if TYPE_CHECKING:
    from triage.settings import Settings

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Slices:
    """One gated series. `affine` (4, 4): (column, row, slice) -> RAS+ mm; slices along the normal
    of their rows and columns. An Enhanced CT has its frames here."""

    identity: Identity
    slices: tuple[Slice, ...]
    affine: NDArray[np.float64]

    @property
    def uid(self) -> str:
        return self.slices[0].series

    @property
    def frame_of_reference(self) -> str:
        """ "" where the images name none: then nothing with coordinates can be written."""
        return self.slices[0].frame_of_reference

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        first = self.slices[0]
        return len(self.slices), int(first.rows or 0), int(first.columns or 0)

    def at(self, index: int) -> int:
        """Slice by its place from the patient's feet, as the report counts."""
        if not 0 <= index < len(self.slices):
            raise IndexError(f"Expected a slice below {len(self.slices)}, got {index}")
        return index if self.affine[2, 2] > 0 else len(self.slices) - 1 - index

    @cached_property
    def headers(self) -> tuple[Dataset, ...]:
        return tuple(_header(self.identity, item) for item in self.slices)


@dataclass(frozen=True)
class Source:
    """A study: its identity and, where it passed the gate, its series by SeriesInstanceUID."""

    identity: Identity
    series: dict[str, Slices]

    @property
    def any_header(self) -> Dataset:
        """An image of the study to copy patient and study from."""
        for slices in self.series.values():
            return slices.headers[0]
        return study_header(self.identity)


def read_source(folder: Path, settings: Settings, wanted: frozenset[str] = frozenset()) -> Source:
    """The study in a folder or zip of DICOM. A study that the gate refuses has no series.

    `wanted`: SOP Instance UIDs that the report names. Where the gate made two stacks of one series
    (contrast phases), the one that holds them is meant.
    Raises NotAnalysed (UNREADABLE) where not even a study can be told, or it is no DICOM.
    """
    try:
        with open_study(folder, settings) as study:
            gated = [item for item in study.series if isinstance(item, GatedSeries)]
            if not gated:
                raise NotAnalysed("UNREADABLE", "the input is no DICOM")
            paths = [Path(item.slices[0].path) for item in gated]
            identity = read_identity(paths, settings)
            gated.sort(key=lambda item: sum(s.sop_instance in wanted for s in item.slices))
            series = {item.series_instance_uid: _slices(identity, item) for item in gated}
    except NotAnalysed:
        identity = read_identity(_files(folder), settings)
        series = {}
    return Source(identity, series)


def _files(folder: Path) -> Sequence[Path]:
    if folder.is_file():
        return [folder]
    return sorted(p for p in folder.rglob("*") if p.is_file())[:1000]


def _slices(identity: Identity, item: GatedSeries) -> Slices:
    return Slices(identity, item.slices, np.array(item.affine, dtype=np.float64))


def study_header(identity: Identity) -> Dataset:
    """Patient and study modules, and which image they were read from."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID = identity.sop_class_uid
    header.SOPInstanceUID = identity.sop_instance_uid
    header.StudyInstanceUID = identity.study_instance_uid
    header.SeriesInstanceUID = identity.series_instance_uid
    header.Modality = identity.modality or "CT"
    header.PatientName = identity.patient_name
    header.PatientID = identity.patient_id
    header.PatientBirthDate = identity.patient_birth_date
    header.PatientSex = identity.patient_sex
    header.StudyDate, header.StudyTime = identity.study_date, identity.study_time
    header.StudyID, header.AccessionNumber = identity.study_id, identity.accession_number
    header.ReferringPhysicianName = identity.referring_physician_name
    optional = {
        "IssuerOfPatientID": identity.issuer_of_patient_id,
        "PatientAge": identity.patient_age,
        "StudyDescription": identity.study_description,
    }
    for keyword, value in optional.items():
        if value:
            setattr(header, keyword, value)
    return header


def _header(identity: Identity, item: Slice) -> Dataset:
    header = study_header(identity)
    header.SOPClassUID, header.SOPInstanceUID = item.sop_class, item.sop_instance
    header.StudyInstanceUID, header.SeriesInstanceUID = item.study, item.series
    header.Modality = "CT"
    if item.instance_number is not None:
        header.InstanceNumber = str(item.instance_number)
    header.Rows, header.Columns = item.rows, item.columns
    header.BitsAllocated, header.SamplesPerPixel = 16, 1
    if item.frame_of_reference:
        header.FrameOfReferenceUID = item.frame_of_reference
        header.PositionReferenceIndicator = ""
    header.ImagePositionPatient = [_number(v) for v in item.position or ()]
    header.ImageOrientationPatient = [_number(v) for v in item.orientation or ()]
    header.PixelSpacing = [_number(v) for v in item.spacing or ()]
    if item.thickness:
        header.SliceThickness = _number(item.thickness[0])
    return header


def _number(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 section 6.2, DS)."""
    for digits in range(12, 5, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    return f"{value:.5g}"
