"""Whom a message is about: the patient and study of one report, as messages name them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Subject:
    """Clean text; dates as DICOM writes them (YYYYMMDD), "" where unknown."""

    study_instance_uid: str
    patient_id: str = ""
    patient_name: str = ""  # PN: family^given^middle^prefix^suffix
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""
    study_date: str = ""
    placer_order_number: str = ""
    finished_at: datetime = START

    @property
    def name_parts(self) -> tuple[str, str]:
        """Family and given name of the first (alphabetic) group."""
        parts = [*self.patient_name.split("=")[0].split("^"), "", ""]
        return parts[0].strip(), parts[1].strip()
