"""The report as FHIR R4: a transaction with a DiagnosticReport (preliminary) and Observations.

Plain JSON values; `fhir.resources` checks them in the tests. Patient, imaging study and order are
named by their identifiers (logical references): nothing of the hospital's is created. Each resource
is put under an identifier of ours (conditional update), so that a second sending adds nothing and a
new version of the analysis takes the place of the one before, whose history the server keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from triage.results.dicom import codes, words
from triage.results.dicom.common import MODEL, Analysis
from triage.results.dicom.uids import identifier
from triage.results.priorities import PRIORITIES
from triage.results.subject import Subject
from triage.types import DISCLAIMER, TARGETS, Priority, Target, Verdict

Json = dict[str, Any]

URI = "urn:ietf:rfc:3986"
SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    codes.OWN: "urn:uuid:6f0a3b0e-5d43-5a0b-9c56-6b1e4f1d7a52",
}
_REPLACES = "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"
_RESEARCH = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
    "code": "HRESCH",
    "display": "healthcare research",
}


def bundle(analysis: Analysis, subject: Subject) -> Json:
    """The transaction to POST to a server's base address."""
    observations = [_target(analysis, subject, target) for target in TARGETS]
    observations.append(_priority(analysis, subject))
    report = _report(analysis, subject, observations)
    entries = [
        _entry("DiagnosticReport", report),
        *(_entry("Observation", o) for o in observations),
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _entry(kind: str, resource: Json) -> Json:
    key = resource["identifier"][0]["value"]
    return {
        "fullUrl": key,
        "resource": resource,
        "request": {"method": "PUT", "url": f"{kind}?identifier={URI}|{key}"},
    }


def _identifiers(analysis: Analysis, subject: Subject, what: str) -> list[Json]:
    """The same for all versions of a study's analysis; then that of this very one."""
    keys = identifier(subject.study_instance_uid, what), identifier(analysis.key, f"fhir {what}")
    uses = ("usual", "secondary")
    return [
        {"use": use, "system": URI, "value": f"urn:uuid:{key}"}
        for use, key in zip(uses, keys, strict=True)
    ]


def _common(analysis: Analysis, subject: Subject, kind: str, what: str) -> Json:
    found: Json = {
        "resourceType": kind,
        "meta": {"security": [_RESEARCH]},
        "identifier": _identifiers(analysis, subject, what),
        "status": "preliminary",
        "subject": _patient(subject),
        "issued": subject.finished_at.astimezone(UTC).isoformat(timespec="milliseconds"),
    }
    if subject.accession_number:
        found["basedOn"] = [_order(subject)]
    if len(subject.study_date) == 8:
        day = subject.study_date
        found["effectiveDateTime"] = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return found


def _patient(subject: Subject) -> Json:
    """A logical reference; without an identifier the name alone."""
    family, given = subject.name_parts
    shown = " ".join(part for part in (given, family) if part) or "unknown"
    found: Json = {"type": "Patient", "display": shown}
    if subject.patient_id:
        found["identifier"] = {
            "type": _concept("http://terminology.hl7.org/CodeSystem/v2-0203", "MR", ""),
            "value": subject.patient_id,
        }
    return found


def _order(subject: Subject) -> Json:
    kind = _concept("http://terminology.hl7.org/CodeSystem/v2-0203", "ACSN", "")
    value = {"type": kind, "value": subject.accession_number}
    return {"type": "ServiceRequest", "identifier": value}


def _concept(system: str, code: str, display: str) -> Json:
    coding = {"system": system, "code": code} | ({"display": display} if display else {})
    return {"coding": [coding]}


def _coded(code: codes.Code) -> Json:
    return _concept(SYSTEMS[code.scheme], code.value, code.meaning) | {"text": code.meaning}


def _report(analysis: Analysis, subject: Subject, observations: list[Json]) -> Json:
    found = _common(analysis, subject, "DiagnosticReport", "report")
    study = {"system": "urn:dicom:uid", "value": f"urn:oid:{subject.study_instance_uid}"}
    found |= {
        "category": [_concept("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")],
        "code": _concept("http://loinc.org", "18748-4", "Diagnostic imaging study")
        | {"text": codes.TRIAGE.meaning},
        "imagingStudy": [{"type": "ImagingStudy", "identifier": study}],
        "result": [{"reference": o["identifier"][0]["value"]} for o in observations],
        "conclusion": " ".join([*words.notes(analysis), *_lines(analysis)]),
    }
    if analysis.previous:
        before = f"urn:uuid:{identifier(analysis.previous, 'fhir report')}"
        found["extension"] = [
            {
                "url": _REPLACES,
                "valueReference": {
                    "type": "DiagnosticReport",
                    "identifier": {"system": URI, "value": before},
                },
            }
        ]
    return found


def _lines(analysis: Analysis) -> list[str]:
    answers = analysis.report.get("targets") or {}
    return [
        f"{codes.FINDINGS[t].meaning}: {words.certificate(analysis, answers[t.value])}"
        for t in TARGETS
        if t.value in answers
    ]


def _target(analysis: Analysis, subject: Subject, target: Target) -> Json:
    """The answer to one question."""
    answer = (analysis.report.get("targets") or {}).get(target.value) or not_analysed(analysis)
    verdict = Verdict(answer["verdict"])
    question = codes.own(f"question_{target.value}", f"Question: {codes.FINDINGS[target].meaning}")
    found = _observation(analysis, subject, target.value, question)
    if verdict is Verdict.NOT_ASSESSED:
        absent = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
        found["dataAbsentReason"] = _concept(absent, "not-performed", "Not Performed") | {
            "text": f"{answer.get('reason') or ''}: {words.VERDICT_NAMES[verdict]}"
        }
    else:
        found["valueCodeableConcept"] = _coded(codes.VERDICTS[verdict])
    found["bodySite"] = _coded(codes.SITES[target])
    found["note"] = [{"text": f"{words.certificate(analysis, answer)} {DISCLAIMER}."}]
    if components := _components(analysis, answer):
        found["component"] = components
    return found


def _observation(analysis: Analysis, subject: Subject, what: str, question: codes.Code) -> Json:
    bundle_ = analysis.bundle
    named = f"{MODEL}, bundle {bundle_.get('name', 'none')} {bundle_.get('version', '')}"
    imaging = "http://terminology.hl7.org/CodeSystem/observation-category"
    return _common(analysis, subject, "Observation", f"observation {what}") | {
        "category": [_concept(imaging, "imaging", "Imaging")],
        "code": _coded(question),
        "device": {"type": "Device", "display": named.strip()},
        "method": {"text": f"Neural networks, sha256 {analysis.sha256}"},
    }


def not_analysed(analysis: Analysis) -> Json:
    """What is said of every target of a study without answers."""
    code = (analysis.report.get("reason") or {}).get("code", "WORKER_FAILED")
    return {"verdict": Verdict.NOT_ASSESSED.value, "probability": None, "reason": code}


def _components(analysis: Analysis, answer: Mapping[str, Any]) -> list[Json]:
    numbers: list[tuple[codes.Code, float]] = []
    if answer.get("probability") is not None:
        real = analysis.score_name == "probability"
        numbers.append((codes.PROBABILITY if real else codes.SCORE, answer["probability"]))
        for code, name in ((codes.RULE_IN, "rule_in"), (codes.RULE_OUT, "rule_out")):
            if cutoff := answer.get(name):
                numbers.append((code, cutoff["cutoff"]))
    unit = {"unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}
    found: list[Json] = [
        {"code": _coded(code), "valueQuantity": {"value": round(float(value), 6), **unit}}
        for code, value in numbers
    ]
    if (side := answer.get("side")) in codes.SIDES:
        laterality = codes.own("side", "Side")
        found.append(
            {"code": _coded(laterality), "valueCodeableConcept": _coded(codes.SIDES[str(side)])}
        )
    if (grade := answer.get("grade")) in codes.GRADES:
        value = _coded(codes.GRADES[str(grade)])
        found.append({"code": _coded(codes.GRADE), "valueCodeableConcept": value})
    return found


def _priority(analysis: Analysis, subject: Subject) -> Json:
    word = PRIORITIES[Priority(analysis.report["priority"])].fhir
    found = _observation(analysis, subject, "priority", codes.PRIORITY)
    found["valueCodeableConcept"] = _concept("http://hl7.org/fhir/request-priority", word, "") | {
        "text": words.PRIORITIES[analysis.report["priority"]]
    }
    return found
