"""The report as HL7 v2.5.1 ORU^R01 (chapter 7.3), and the little of HL7 that messages need.

    MSH PID ORC OBR NTE TQ1 (OBX NTE)*     priority in TQ1-9

UTF-8. OBR-25 is P (preliminary), or C where this version replaces one that was sent. The control id
(MSH-10) follows from the analysis: a second sending is recognisable as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from triage.results.dicom import codes, words
from triage.results.dicom.common import MODEL, Analysis
from triage.results.dicom.uids import identifier
from triage.results.fhir import not_analysed
from triage.results.priorities import PRIORITIES
from triage.results.subject import Subject
from triage.types import DISCLAIMER, TARGETS, Priority, Target, Verdict

SEPARATORS = "|", "^", "~", "\\", "&"
# Chapter 2.7.1: what stands for a separator inside a value.
_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "~": "\\R\\", "&": "\\T\\"}
_BACK = {v: k for k, v in _ESCAPES.items()}


def escape(text: str) -> str:
    """`text` as part of a field: separators escaped, one line."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return "".join(_ESCAPES.get(c, c) for c in plain)


def unescape(text: str) -> str:
    """What a part of a field says."""
    for code, character in _BACK.items():
        if code != "\\E\\":
            text = text.replace(code, character)
    return text.replace("\\E\\", "\\")


def segment(name: str, fields: Mapping[int, str]) -> str:
    """A segment from numbered fields, which are written already."""
    last = max(fields, default=0)
    return "|".join([name, *(fields.get(i, "") for i in range(1, last + 1))])


def parsed(message: str) -> list[list[str]]:
    """Segments as lists of fields: [i] is field i, except in MSH, where [1] is the separator.

    Raises ValueError where it is no HL7 v2 with the usual separators.
    """
    lines = [line for line in message.replace("\n", "\r").split("\r") if line.strip()]
    if not lines or not lines[0].startswith("MSH|^~\\&"):
        raise ValueError("Expected HL7 v2 with the separators |^~\\&")
    segments = [line.split("|") for line in lines]
    segments[0].insert(1, "|")
    return segments


def field(fields: Sequence[str], number: int, component: int = 1) -> str:
    """First repetition, one component of a field; "" where it is not there."""
    if number >= len(fields):
        return ""
    parts = fields[number].split("~")[0].split("^")
    return unescape(parts[component - 1]).strip() if component <= len(parts) else ""


def time_of(moment: datetime) -> str:
    """DTM with its zone (chapter 2A.22)."""
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")


def control_id(analysis: Analysis) -> str:
    """MSH-10, 20 characters at most, the same for the same analysis."""
    return f"T{identifier(analysis.key, 'hl7').hex[:19].upper()}"


def message(analysis: Analysis, subject: Subject) -> str:
    """ORU^R01 with one segment a line (carriage returns)."""
    moment = time_of(subject.finished_at)
    status = "C" if analysis.previous else "P"
    priority = PRIORITIES[Priority(analysis.report["priority"])]
    lines = [
        header("ORU^R01^ORU_R01", control_id(analysis), moment),
        _patient(subject),
        segment("ORC", {1: "RE", **_numbers(subject)}),
        segment(
            "OBR",
            {
                1: "1",
                **_numbers(subject),
                4: _coded(codes.TRIAGE),
                7: subject.study_date or moment,
                22: moment,
                24: "CT",
                25: status,
            },
        ),
        *_notes(words.notes(analysis)),
        segment("TQ1", {1: "1", 9: f"{priority.hl7}^{priority.hl7_text}^HL70485"}),
    ]
    return "\r".join([*lines, *_observations(analysis, subject, moment)]) + "\r"


def header(kind: str, control: str, moment: str) -> str:
    """MSH; our application is both name and facility."""
    fields = {2: "^~\\&", 3: MODEL, 4: MODEL, 7: moment, 9: kind, 10: control, 11: "P", 12: "2.5.1"}
    line = segment("MSH", {**{i - 1: v for i, v in fields.items()}, 17: "UNICODE UTF-8"})
    return line


def _patient(subject: Subject) -> str:
    family, given = subject.name_parts
    fields = {
        1: "1",
        3: f"{escape(subject.patient_id or 'unknown')}^^^^MR",
        5: f"{escape(family)}^{escape(given)}".rstrip("^"),
        7: subject.patient_birth_date,
        8: subject.patient_sex,
    }
    return segment("PID", fields)


def _numbers(subject: Subject) -> dict[int, str]:
    """Order numbers, alike in ORC and OBR: placer's, and ours to fill (the accession number)."""
    filler = subject.accession_number or subject.study_instance_uid
    return {2: escape(subject.placer_order_number), 3: escape(filler)}


def _coded(code: codes.Code) -> str:
    return "^".join(
        (code.value, escape(code.meaning), "SCT" if code.scheme == "SCT" else code.scheme)
    )


def _notes(lines: Sequence[str]) -> list[str]:
    return [
        segment("NTE", {1: str(i), 2: "L", 3: escape(line)})
        for i, line in enumerate(lines, start=1)
    ]


def _observations(analysis: Analysis, subject: Subject, moment: str) -> list[str]:
    found: list[str] = []
    number = 0

    def add(kind: str, code: codes.Code, sub: str, value: str, flag: str = "") -> None:
        nonlocal number
        number += 1
        fields = {
            1: str(number),
            2: kind,
            3: _coded(code),
            4: sub,
            5: value,
            8: flag,
            11: "P",
            14: moment,
        }
        found.append(segment("OBX", fields))

    uid = codes.own("study_instance_uid", "Study Instance UID")
    add("ST", uid, "", subject.study_instance_uid)
    for target in TARGETS:
        answer = (analysis.report.get("targets") or {}).get(target.value) or not_analysed(analysis)
        _target(analysis, target, answer, add)
        found += _notes([f"{words.certificate(analysis, answer)} {DISCLAIMER}."])
    return found


def _target(analysis: Analysis, target: Target, answer: Mapping[str, Any], add: Any) -> None:
    verdict = Verdict(answer["verdict"])
    if answer.get("probability") is not None:
        real = analysis.score_name == "probability"
        add(
            "NM",
            codes.PROBABILITY if real else codes.SCORE,
            target.value,
            f"{answer['probability']:.4f}",
        )
    flag = "A" if verdict is Verdict.SUSPECTED else ""
    question = codes.own(f"question_{target.value}", codes.FINDINGS[target].meaning)
    add("CWE", question, target.value, _coded(codes.VERDICTS[verdict]), flag)
