"""Who and which study: what results must carry to be filed with the images they are about.

Apart from the gate, which needs no identity: only what leaves the service asks for it. Read in the
child process by the same strict walker; every value is decoded, cut and brought into the form that
its VR allows (PS3.5 section 6.2), or left empty.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..reasons import NotAnalysed
from . import child, dataset
from .charset import decoded
from .headers import identifiers
from .syntax import SYNTAXES, Syntax

if TYPE_CHECKING:
    from ..settings import Settings

READ = "triage.dicom.identity:read"
_LAST_TAG = 0x0020FFFF
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


@dataclass(frozen=True, slots=True)
class Identity:
    """Patient and study modules of one image (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2), cleaned."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    modality: str = ""
    patient_name: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    study_description: str = ""
    accession_number: str = ""
    referring_physician_name: str = ""


def _fits(pattern: str) -> Callable[[str], str]:
    return lambda text: text if re.fullmatch(pattern, text) else ""


def _at_most(length: int) -> Callable[[str], str]:
    return lambda text: text.replace("\\", " ").strip()[:length].strip()


def _name(text: str) -> str:
    """PN: three groups of 64 characters, five components each."""
    groups = [group[:64] for group in text.replace("\\", " ").split("=")[:3]]
    return "=".join("^".join(group.split("^")[:5]) for group in groups).strip()


# Attribute: tag -> (field, form of its VR).
_FIELDS: dict[int, tuple[str, Callable[[str], str]]] = {
    0x00080020: ("study_date", _fits(r"\d{8}")),
    0x00080030: ("study_time", _fits(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")),
    0x00080050: ("accession_number", _at_most(16)),
    0x00080090: ("referring_physician_name", _name),
    0x00081030: ("study_description", _at_most(64)),
    0x00100010: ("patient_name", _name),
    0x00100020: ("patient_id", _at_most(64)),
    0x00100021: ("issuer_of_patient_id", _at_most(64)),
    0x00100030: ("patient_birth_date", _fits(r"\d{8}")),
    0x00100040: ("patient_sex", _fits("[MFO]")),
    0x00101010: ("patient_age", _fits(r"\d{3}[DWMY]")),
    0x00200010: ("study_id", _at_most(16)),
}
_UIDS = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00200052: "FrameOfReferenceUID",
}
_ATTRIBUTES = (
    {tag: (name, "t") for tag, (name, _) in _FIELDS.items()}
    | {tag: (name, "t") for tag, name in _UIDS.items()}
    | {0x00080005: ("SpecificCharacterSet", "t"), 0x00080060: ("Modality", "t")}
)


def read_identity(paths: Sequence[Path], settings: Settings) -> Identity:
    """The identity in the first of `paths` that has UIDs. Raises NotAnalysed: UNREADABLE."""
    answer, _ = child.run(
        READ,
        {"paths": [str(p.absolute()) for p in paths]},
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decode_memory_bytes,
    )
    found = {key: str(value) for key, value in answer.items()}
    return Identity(**found)


# ---- in the child


def read(request: dict[str, Any], _out: mmap.mmap | None) -> dict[str, Any]:
    """Task of the child: the fields of `Identity`."""
    for name in request["paths"]:
        try:
            found = _read_one(Path(name))
        except (NotAnalysed, OSError, ValueError, struct.error, IndexError, RecursionError):
            continue
        uids = [found[f"{key}_uid"] for key in ("study_instance", "series_instance")]
        if all(len(uid) <= 64 and _UID.fullmatch(uid) for uid in uids):
            return found
    raise dataset.unreadable("no file with study and series UIDs")


def _read_one(path: Path) -> dict[str, Any]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        meta, start = dataset.read_meta(data)
        syntax = SYNTAXES.get(meta.get("TransferSyntaxUID", ""), Syntax("unknown"))
        content = dataset.body(data, start, syntax, 1 << 30)
        walker = dataset.Walker(
            content, syntax.explicit, syntax.big_endian, _ATTRIBUTES, last_tag=_LAST_TAG
        )
        found, _ = walker.walk(0 if syntax.deflated else start, len(content))
    uids = identifiers(found, meta)
    characters = found.get("SpecificCharacterSet", "")
    fields: dict[str, Any] = {
        "sop_class_uid": uids["sop_class"],
        "sop_instance_uid": uids["sop_instance"],
        "study_instance_uid": uids["study"],
        "series_instance_uid": uids["series"],
        "modality": found.get("Modality", "")[:16],
    }
    for name, form in _FIELDS.values():
        raw = str(found.get(name) or "").encode("latin-1", "replace")
        fields[name] = form(decoded(raw, characters))
    return fields
