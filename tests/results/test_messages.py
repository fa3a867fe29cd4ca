"""FHIR and HL7 say what the report says, and validators of others agree."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from fhir.resources.R4B.bundle import Bundle
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given
from hypothesis import strategies as st

from triage.results import fhir, hl7
from triage.results.dicom.common import Analysis
from triage.results.priorities import PRIORITIES
from triage.results.report import refused, to_dict
from triage.results.subject import Subject
from triage.types import (
    TARGETS,
    BundleRef,
    Cutoff,
    Finding,
    Phase,
    Priority,
    Report,
    SeriesUsed,
    Status,
    Target,
    Verdict,
)

SUBJECT = Subject(
    "1.2.3.4",
    "P|1",
    "MÜLLER^É&lodie",
    "19700203",
    "F",
    "ACC-7",
    "20200101",
    "PL-1",
    datetime(2026, 11, 21, 14, 4, tzinfo=UTC),
)


def analysis(**verdicts: Verdict) -> Analysis:
    """A report with these verdicts; the others found nothing."""
    findings = {}
    for target in TARGETS:
        verdict = verdicts.get(target.value, Verdict.NO_FINDING)
        score = {Verdict.SUSPECTED: 0.9, Verdict.NO_FINDING: 0.01}.get(verdict, 0.3)
        if verdict is Verdict.NOT_ASSESSED:
            findings[target] = Finding(target, verdict, None, "1.2", "NO_CONTRAST")
            continue
        cutoffs = Cutoff(0.1, 0.95, 59), Cutoff(0.5, specificity=0.95)
        side = "left" if target is Target.KIDNEY and verdict is Verdict.SUSPECTED else None
        findings[target] = Finding(
            target, verdict, score, "1.2", rule_out=cutoffs[0], rule_in=cutoffs[1], side=side
        )
    found = set(verdicts.values())
    priority = Priority.URGENT if Verdict.NOT_ASSESSED in found else Priority.ROUTINE
    priority = Priority.STAT if Verdict.SUSPECTED in found else priority
    report = Report(
        Status.ANALYSED,
        "1.2.3.4",
        series=(SeriesUsed("1.2", Phase.PORTAL_VENOUS, 100, "the only one"),),
        bundle=BundleRef("test", "1", "ab" * 32, "simulated"),
        priority=priority,
        findings=findings,
    )
    return Analysis(to_dict(report), "a-1")


CASES = [
    analysis(),
    analysis(kidney=Verdict.SUSPECTED, liver=Verdict.NOT_EXCLUDED),
    analysis(extravasation=Verdict.NOT_ASSESSED, spleen=Verdict.UNCERTIFIED),
    Analysis(to_dict(refused("GAP", "two slices", "1.2.3.4")), "a-2"),
]


def test_fhir_is_valid_r4_and_says_it() -> None:
    for case in CASES:
        for one in (case, replace(case, version=2, previous="a-0")):
            Bundle.model_validate(fhir.bundle(one, SUBJECT))
            resources = [e["resource"] for e in fhir.bundle(one, SUBJECT)["entry"]]
            assert {r["status"] for r in resources} == {"preliminary"}
            assert len(resources) == 1 + len(TARGETS) + 1
            for target, said in zip(TARGETS, resources[1:6], strict=True):
                answer = (one.report["targets"] or {}).get(target.value)
                if answer is None or answer["verdict"] == "not_assessed":
                    assert "valueCodeableConcept" not in said and "dataAbsentReason" in said
                else:
                    assert said["valueCodeableConcept"]["coding"][0]["code"] == answer["verdict"]
            word = resources[-1]["valueCodeableConcept"]["coding"][0]["code"]
            assert word == PRIORITIES[Priority(one.report["priority"])].fhir


def test_fhir_puts_a_newer_version_in_the_place_of_the_old_one() -> None:
    old, new = CASES[0], replace(CASES[0], key="a-9", version=2, previous="a-1")
    first, second = fhir.bundle(old, SUBJECT), fhir.bundle(new, SUBJECT)
    assert [e["request"] for e in first["entry"]] == [e["request"] for e in second["entry"]]
    replaced = second["entry"][0]["resource"]["extension"][0]["valueReference"]["identifier"]
    assert replaced["value"] == first["entry"][0]["resource"]["identifier"][1]["value"]


def test_hl7_is_valid_and_says_it() -> None:
    for case in CASES:
        for one in (case, replace(case, version=2, previous="a-0")):
            text = hl7.message(one, SUBJECT)
            message = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT)
            assert message.validate()
            lines = hl7.parsed(text)
            by_name = {line[0]: line for line in reversed(lines)}
            assert hl7.field(by_name["OBR"], 25) == ("C" if one.previous else "P")
            priority = PRIORITIES[Priority(one.report["priority"])]
            assert hl7.field(by_name["TQ1"], 9) == priority.hl7
            assert hl7.field(by_name["PID"], 3) == "P|1"
            answers = {hl7.field(o, 4): hl7.field(o, 5) for o in lines if o[:1] == ["OBX"]}
            for target in TARGETS:
                answer = (one.report["targets"] or {}).get(target.value)
                assert answers[target.value] == (answer["verdict"] if answer else "not_assessed")


def test_a_control_id_belongs_to_an_analysis() -> None:
    one, other = CASES[0], replace(CASES[0], key="a-3")
    assert hl7.control_id(one) == hl7.control_id(CASES[0]) != hl7.control_id(other)
    assert len(hl7.control_id(one)) == 20


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_what_is_escaped_comes_back(text: str) -> None:
    line = hl7.segment("ZZZ", {3: hl7.escape(text)})
    fields = hl7.parsed(f"MSH|^~\\&|a\r{line}\r")[1]
    plain = "".join(c if c.isprintable() else " " for c in text)
    assert hl7.field(fields, 3) == plain.strip()
