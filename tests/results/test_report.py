"""The schema and the dataclasses say the same, and no report contradicts itself."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from triage import types
from triage.decision.priority import suggest_priority
from triage.files import write_atomic
from triage.reasons import REASONS
from triage.results.report import TIMINGS, report_schema, to_dict, write_report
from triage.types import (
    TARGETS,
    BundleRef,
    Cutoff,
    Finding,
    KeySlice,
    Phase,
    Priority,
    Refusal,
    Report,
    SeriesUsed,
    Status,
    Target,
    Verdict,
)

VALIDATOR = Draft202012Validator(report_schema())
fractions = st.floats(0, 1)
codes = st.sampled_from(sorted(REASONS))
texts = st.text(max_size=20)

refusals = codes.map(lambda code: Refusal(code, *REASONS[code]))
bundles = st.builds(
    BundleRef,
    name=st.text(min_size=1, max_size=9),
    version=st.just("1.2"),
    sha256=st.just("0f" * 32),
    calibrated_on=st.sampled_from(["simulated", "real"]),
)
series = st.builds(
    SeriesUsed, texts, st.sampled_from(Phase), st.integers(min_value=1, max_value=9999), texts
)
key_slices = st.builds(
    KeySlice, texts, st.none() | st.integers(), st.integers(min_value=0), fractions
)


@st.composite
def findings(draw: st.DrawFn, target: Target) -> Finding:
    finding = Finding(
        target,
        Verdict.NOT_ASSESSED,
        None,
        side=draw(st.none() | st.sampled_from(["right", "left", "both"]))
        if target is Target.KIDNEY
        else None,
        grade=draw(st.none() | st.sampled_from(["low", "high"])),
        key_slices=tuple(draw(st.lists(key_slices, max_size=2))),
        saliency=draw(st.none() | st.just(f"saliency_{target}.nii.gz")),
        overlays=tuple(draw(st.lists(st.just(f"overlays/{target}_0.png"), max_size=2))),
    )
    if draw(st.booleans()):
        finding.reason = draw(codes)
        return finding
    rule_out, rule_in = sorted((draw(fractions), draw(fractions)))
    bound = draw(st.none() | fractions)
    p = finding.probability = draw(fractions)
    finding.series_instance_uid = draw(texts)
    finding.rule_out = Cutoff(rule_out, bound, draw(st.none() | st.integers(0, 999)))
    finding.rule_in = Cutoff(rule_in, specificity=draw(st.none() | fractions))
    if p >= rule_in:
        finding.verdict = Verdict.SUSPECTED
    elif draw(st.booleans()) or bound is None:
        finding.verdict = Verdict.UNCERTIFIED
    else:
        finding.verdict = Verdict.NOT_EXCLUDED if p >= rule_out else Verdict.NO_FINDING
    return finding


@st.composite
def reports(draw: st.DrawFn) -> Report:
    report = Report(
        draw(st.sampled_from(Status)),
        draw(st.none() | texts),
        series=tuple(draw(st.lists(series, min_size=1, max_size=2))),
        bundle=draw(bundles),
        quality=draw(st.lists(st.dictionaries(texts, fractions, max_size=2), max_size=2)),
        timings=draw(st.dictionaries(st.sampled_from(TIMINGS), st.floats(0, 1e4), max_size=8)),
        warnings=draw(st.lists(texts, max_size=2)),
    )
    if report.status is Status.ANALYSED:
        report.findings = {target: draw(findings(target)) for target in TARGETS}
        report.priority = suggest_priority(report.status, report.findings)
    elif report.status in (Status.NOT_ANALYSED, Status.NOT_APPLICABLE):
        report.reason = draw(refusals)
    return report


def analysed() -> Report:
    def found(target: Target) -> Finding:
        low, high = Cutoff(0.1, 0.95, 60), Cutoff(0.6, specificity=0.99)
        return Finding(target, Verdict.NOT_EXCLUDED, 0.3, "1.2", rule_out=low, rule_in=high)

    return Report(
        Status.ANALYSED,
        "1.2.3",
        series=(SeriesUsed("1.2", Phase.PORTAL_VENOUS, 75, "thinnest"),),
        bundle=BundleRef("reference", "1", "ab" * 32, "real"),
        priority=Priority.ROUTINE,
        findings={target: found(target) for target in TARGETS},
    )


@given(reports())
@settings(max_examples=150, deadline=None)
def test_every_sound_report_obeys_the_schema(report: Report) -> None:
    data = json.loads(json.dumps(to_dict(report), allow_nan=False))
    VALIDATOR.validate(data)


def test_the_schema_itself_is_valid() -> None:
    Draft202012Validator.check_schema(report_schema())


def keys(schema: dict[str, Any]) -> set[str]:
    assert schema["additionalProperties"] is False
    return set(schema["properties"])


@pytest.mark.parametrize(
    ("part", "cls", "renamed", "optional"),
    [
        (None, types.Report, {"findings": "targets"}, {"reason"}),
        ("target", types.Finding, {}, {"reason", "side", "grade"}),
        ("series", types.SeriesUsed, {}, set()),
        ("bundle", types.BundleRef, {}, set()),
        ("reason", types.Refusal, {}, set()),
        ("key_slice", types.KeySlice, {}, set()),
    ],
)
def test_schema_and_dataclass_have_the_same_keys(
    part: str | None, cls: Any, renamed: dict[str, str], optional: set[str]
) -> None:
    schema = report_schema()["$defs"][part] if part else report_schema()
    fields = {renamed.get(f.name, f.name) for f in dataclasses.fields(cls)}
    extra = {None: {"schema_version"}, "target": {"flagged"}}.get(part, set())
    # A finding's own target is its key in `targets`.
    assert keys(schema) == (fields | extra) - ({"target"} if part == "target" else set())
    assert set(schema["required"]) == keys(schema) - optional


def test_schema_and_vocabulary_have_the_same_words() -> None:
    schema = report_schema()
    top, defs = schema["properties"], schema["$defs"]
    assert top["status"]["enum"] == [s.value for s in Status]
    assert top["priority"]["enum"] == [p.value for p in Priority]
    assert list(top["targets"]["properties"]) == [t.value for t in TARGETS]
    assert defs["target"]["properties"]["verdict"]["enum"] == [v.value for v in Verdict]
    assert defs["series"]["properties"]["phase"]["enum"] == [p.value for p in Phase]
    assert list(top["timings"]["properties"]) == list(TIMINGS)


BAD_DOCUMENTS: dict[str, Any] = {
    "a target is missing": lambda d: d["targets"].pop("liver"),
    "no bundle": lambda d: d.update(bundle=None),
    "negative without analysis": lambda d: d.update(status="not_analysed"),
    "not analysed without a reason": lambda d: d.update(
        status="not_analysed", targets={}, priority="urgent"
    ),
    "not assessed with a probability": lambda d: d["targets"]["liver"].update(
        verdict="not_assessed", reason="NO_CONTRAST"
    ),
    "not assessed without a reason": lambda d: d["targets"]["liver"].update(
        verdict="not_assessed", probability=None
    ),
    "assessed without a probability": lambda d: d["targets"]["liver"].update(probability=None),
    "suspected and not flagged": lambda d: d["targets"]["liver"].update(verdict="suspected"),
    "suspected and routine": lambda d: d["targets"]["liver"].update(
        verdict="suspected", flagged=True
    ),
    "not assessed and routine": lambda d: d["targets"]["liver"].update(
        verdict="not_assessed", probability=None, reason="NO_CONTRAST"
    ),
    "no finding without a certificate": lambda d: (
        d["targets"]["liver"].update(verdict="no_finding"),
        d["targets"]["liver"]["rule_out"].update(sensitivity_lower_bound=None),
    ),
    "side of the liver": lambda d: d["targets"]["liver"].update(side="left"),
    "path that climbs": lambda d: d["targets"]["liver"].update(saliency="../x.nii.gz"),
    "unknown key": lambda d: d.update(patient_name="X"),
}


@pytest.mark.parametrize("fault", BAD_DOCUMENTS)
def test_the_schema_refuses(fault: str) -> None:
    document = to_dict(analysed())
    VALIDATOR.validate(document)
    bad = copy.deepcopy(document)
    BAD_DOCUMENTS[fault](bad)
    assert not VALIDATOR.is_valid(bad), fault


BAD_REPORTS: dict[str, Any] = {
    "missing answer": lambda r: r.findings.pop(Target.BOWEL),
    "missing bundle": lambda r: setattr(r, "bundle", None),
    "wrong priority": lambda r: setattr(r, "priority", Priority.URGENT),
    "answers without analysis": lambda r: setattr(r, "status", Status.NOT_ANALYSED),
    "above rule-in, not suspected": lambda r: setattr(r.findings[Target.LIVER], "probability", 0.7),
    "below rule-out, not excluded": lambda r: setattr(
        r.findings[Target.LIVER], "probability", 0.05
    ),
    "not a number": lambda r: setattr(r.findings[Target.LIVER], "probability", float("nan")),
    "no cutoffs": lambda r: setattr(r.findings[Target.LIVER], "rule_out", None),
    "unknown reason": lambda r: setattr(r, "reason", Refusal("WHO_KNOWS", "m", "f")),
    "unknown timing": lambda r: r.timings.update(coffee_s=1.0),
}


@pytest.mark.parametrize("fault", BAD_REPORTS)
def test_a_report_that_contradicts_itself_is_never_written(fault: str, tmp_path: Path) -> None:
    report = analysed()
    BAD_REPORTS[fault](report)
    with pytest.raises(ValueError, match="contradicts itself"):
        write_report(report, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_write_report_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    path = write_report(analysed(), out)
    assert path == out / "report.json"
    refused = Report(Status.NOT_ANALYSED, None, reason=Refusal("NOT_CT", *REASONS["NOT_CT"]))
    write_report(refused, out)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert (data["status"], data["reason"]["code"], data["targets"]) == (
        "not_analysed",
        "NOT_CT",
        {},
    )
    assert [p.name for p in out.iterdir()] == ["report.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    (target / "inside").mkdir(parents=True)  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match="taken"):
        write_atomic(target, b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
