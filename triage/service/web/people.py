"""Patients as text. Everything here came from a sender and may be anything; templates escape it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date

from triage.service.records.models import Study
from triage.service.web.words import Words

LONGEST = 80  # characters shown; the rest is cut with an ellipsis
MASKED = "•••••"
_AGE = re.compile(r"(\d{3})([DWMY])")
# Characters that turn or hide text: a name must not reorder what stands beside it (CVE-2021-42574).
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@dataclass(frozen=True, slots=True)
class Patient:
    """As shown. `facts`: age and sex. Masked fields hold dots."""

    name: str
    number: str
    facts: str
    accession: str


def patient(study: Study, words: Words, mask: bool) -> Patient:
    """Name, number, age, sex and accession number of a study, or dots."""
    if mask:
        return Patient(MASKED, "", "", MASKED)
    return Patient(
        shown_name(study.patient_name, words.language) or words("patient.unknown"),
        tidy(study.patient_id),
        " · ".join(t for t in (age(study, words), _sex(study.patient_sex, words)) if t),
        tidy(study.accession_number),
    )


def tidy(text: str) -> str:
    """One line of visible characters, at most `LONGEST`."""
    visible = "".join(" " if unicodedata.category(c) in _UNSEEN else c for c in text[:1000])
    one = " ".join(visible.split())
    return one if len(one) <= LONGEST else one[: LONGEST - 1] + "…"


def shown_name(name: str, language: str) -> str:
    """A PN value (DICOM PS3.5, 6.2.1) for people: Family, Given; ideographs where they are read."""
    groups = [g for g in name.split("=") if g.strip("^ ")]
    if not groups:
        return ""
    ideographic = name.split("=")[1] if name.count("=") >= 1 else ""
    wanted = ideographic if language == "ja" and ideographic.strip("^ ") else groups[0]
    family, _, rest = wanted.partition("^")
    given = " ".join(part for part in rest.split("^")[:2] if part.strip())
    wide = any(ord(c) > 0x2E80 for c in family)
    return tidy((" " if wide else ", ").join(p for p in (family, given) if p.strip()))


def age(study: Study, words: Words) -> str:
    """PatientAge (AS), else from birth and study date; empty where neither is sound."""
    found = _AGE.fullmatch(study.patient_age.strip())
    if found:
        return words(f"age.{found[2]}", n=int(found[1]))
    born, seen = _day(study.patient_birth_date), _day(study.study_date)
    if born is None or seen is None or not born <= seen:
        return ""
    years = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    return words("age.Y", n=years) if years <= 130 else ""


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text.strip()[:8])
    except ValueError:
        return None


def _sex(text: str, words: Words) -> str:
    code = text.strip().upper()
    return words(f"sex.{code}") if code in ("M", "F", "O") else ""
