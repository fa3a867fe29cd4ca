"""FHIR R4 ServiceRequest -> what we need of it."""

from __future__ import annotations

from typing import Any

from triage.dicom.charset import clean
from triage.results.priorities import ORDERED_FHIR
from triage.service.orders.compare import side_of
from triage.service.records.orders import Ordered

_CANCELLED = {"revoked", "entered-in-error"}


def ordered(resource: dict[str, Any]) -> Ordered:
    """The order in a ServiceRequest. Raises ValueError, whose text names no patient.

    Accession number: the identifier of type ACSN, else the first one with a value.
    """
    if resource.get("resourceType") != "ServiceRequest":
        raise ValueError("Expected a ServiceRequest")
    identifiers = [i for i in _list(resource.get("identifier")) if _text(i.get("value"))]
    accession = next((i for i in identifiers if _is(i, "ACSN")), None)
    placer = next((i for i in identifiers if _is(i, "PLAC")), None)
    chosen = accession or next((i for i in identifiers if i is not placer), None) or placer
    if chosen is None:
        raise ValueError("Expected an identifier with a value: the accession number")
    sites = [_words(site) for site in _list(resource.get("bodySite"))]
    words = " ".join(sites) or _words(resource.get("code"))
    subject = resource.get("subject")
    patient = subject.get("identifier") if isinstance(subject, dict) else None
    return Ordered(
        accession_number=clean(_text(chosen.get("value")))[:64],
        placer_order_number=clean(_text(placer.get("value")))[:64] if placer else "",
        patient_id=clean(_text(patient.get("value")))[:64] if isinstance(patient, dict) else "",
        priority=ORDERED_FHIR.get(_text(resource.get("priority")), "routine"),
        body_part=clean(words)[:64],
        side=side_of(f"{words} {_words(resource.get('code'))}"),
        cancelled=_text(resource.get("status")) in _CANCELLED,
    )


def _list(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _is(identifier: dict[str, Any], code: str) -> bool:
    kind = identifier.get("type")
    codings = _list(kind.get("coding")) if isinstance(kind, dict) else []
    return any(_text(c.get("code")) == code for c in codings)


def _words(concept: Any) -> str:
    """Text of a CodeableConcept, else the words of its codings."""
    if not isinstance(concept, dict):
        return ""
    displays = (_text(c.get("display")) for c in _list(concept.get("coding")))
    return _text(concept.get("text")) or " ".join(d for d in displays if d)
