"""What all our objects share: codes as highdicom wants them, series, equipment, the disclaimer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom import Dataset

from triage import __version__
from triage.results.dicom.codes import OWN, OWN_NAME, PROGRAM, Code
from triage.results.dicom.uids import uid
from triage.types import DISCLAIMER

MANUFACTURER = MODEL = PROGRAM

# Kind of object -> number and name of its series. Numbers are far from those of scanners.
SERIES: dict[str, tuple[int, str]] = {
    "sr": (9101, "report"),
    "sc": (9102, "key slices"),
    "pm": (9103, "saliency"),
    "seg": (9104, "segments"),
    "ko": (9105, "key objects"),
}


@dataclass(frozen=True)
class Analysis:
    """Which answer the objects carry. `key` names it for ever: the UIDs follow from it.

    `previous`: key of the analysis that this one replaces where its report was sent, else "".
    """

    report: Mapping[str, Any]  # report.json
    key: str
    version: int = 1
    previous: str = ""
    notes: tuple[str, ...] = field(default=())

    def uid(self, what: str) -> str:
        return uid(self.key, what)

    @property
    def bundle(self) -> Mapping[str, Any]:
        return self.report.get("bundle") or {}

    @property
    def sha256(self) -> str:
        return str(self.bundle.get("sha256") or "none: the study was not analysed")

    @property
    def score_name(self) -> str:
        return "probability" if self.bundle.get("calibrated_on") == "real" else "score"


def coded(code: Code) -> Any:
    return CodedConcept(code.value, code.scheme, code.meaning)


def in_series(analysis: Analysis, kind: str, number: int = 1) -> dict[str, Any]:
    """Keywords that every class of highdicom takes."""
    series_number, name = SERIES[kind]
    version = f" v{analysis.version}" if analysis.version > 1 else ""
    shown = f"Triage{version} {name}"[: 62 - len(DISCLAIMER)]  # LO: 64 characters
    return {
        "series_instance_uid": analysis.uid(f"series {kind}"),
        "series_number": series_number,
        "sop_instance_uid": analysis.uid(f"{kind} {number}"),
        "instance_number": number,
        "manufacturer": MANUFACTURER,
        "series_description": f"{shown}. {DISCLAIMER}",
    }


def equipment(analysis: Analysis) -> dict[str, Any]:
    """Program and networks (PS3.3 C.7.5.2); the serial number is the bundle's sha256."""
    return {
        "manufacturer_model_name": MODEL,
        "software_versions": software(analysis),
        "device_serial_number": analysis.sha256,
    }


def software(analysis: Analysis) -> list[str]:
    bundle = analysis.bundle
    networks = f"{bundle['name']} {bundle['version']}" if bundle else "no bundle"
    return [f"triage {__version__}", f"bundle {networks}"[:64]]


def own_scheme() -> list[Any]:
    """Where our designator comes from (PS3.3 C.12.1, Coding Scheme Identification)."""
    return [CodingSchemeIdentificationItem(OWN, name=OWN_NAME, responsible_organization=PROGRAM)]


def finished(data: Any, analysis: Analysis) -> Dataset:
    """The last touches that no class of highdicom makes."""
    data.SpecificCharacterSet = "ISO_IR 192"
    data.StudyInstanceUID = str(data.StudyInstanceUID)
    if "ManufacturerModelName" not in data:
        data.ManufacturerModelName = MODEL
        data.SoftwareVersions = software(analysis)
        data.DeviceSerialNumber = analysis.sha256
    checked: Dataset = data
    return checked
