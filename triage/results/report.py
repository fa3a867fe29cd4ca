"""report.json: the `Report` as JSON, in the shape of `report.schema.json` beside this file.

Optional keys (reason, side, grade) are absent when there is nothing to say; every other key is
always there. A report that contradicts itself is a fault of ours and is never written: better no
file than one that reads as negative.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from triage.decision.priority import suggest_priority
from triage.files import write_atomic
from triage.reasons import REASONS, NotAnalysed
from triage.types import (
    TARGETS,
    Cutoff,
    Finding,
    Priority,
    Refusal,
    Report,
    Status,
    Target,
    Verdict,
)

SCHEMA_VERSION = "1.0"
REPORT_NAME = "report.json"
# Stages that `timings` may name, in the order of the way of the data; seconds.
TIMINGS = (
    "gate_s",
    "load_s",
    "read_s",
    "resample_s",
    "quality_s",
    "localise_s",
    "slices_s",
    "volume_s",
    "saliency_s",
    "total_s",
)


@lru_cache(maxsize=1)
def report_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) that every report.json obeys."""
    text = files("triage.results").joinpath("report.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def to_dict(report: Report) -> dict[str, Any]:
    """`report` as plain JSON values. Raises ValueError naming every contradiction in it."""
    if faults := contradictions(report):
        raise ValueError("The report contradicts itself: " + "; ".join(faults))
    data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "status": report.status.value}
    if (reason := report.reason) is not None:
        data["reason"] = {"code": reason.code, "message": reason.message, "fix": reason.fix}
    data["study_instance_uid"] = report.study_instance_uid
    data["series"] = [
        {
            "series_instance_uid": s.series_instance_uid,
            "phase": s.phase.value,
            "slices": s.slices,
            "why_chosen": s.why_chosen,
        }
        for s in report.series
    ]
    bundle = report.bundle
    data["bundle"] = bundle and {
        "name": bundle.name,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "calibrated_on": bundle.calibrated_on,
    }
    data["priority"] = report.priority.value
    data["targets"] = {
        target.value: _finding(report.findings[target])
        for target in TARGETS
        if target in report.findings
    }
    data["quality"] = list(report.quality)
    data["timings"] = {name: report.timings[name] for name in TIMINGS if name in report.timings}
    data["warnings"] = list(report.warnings)
    data["disclaimer"] = report.disclaimer
    return data


def to_json(report: Report) -> str:
    """`report` as the text of report.json; NaN and infinity raise ValueError."""
    return json.dumps(to_dict(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(report: Report, out: Path) -> Path:
    """Write `out`/report.json, whole or not at all; returns its path. `out` is made if absent."""
    text = to_json(report)
    out.mkdir(parents=True, exist_ok=True)
    return write_atomic(out / REPORT_NAME, text.encode("utf-8"))


def refused(code: str, detail: str = "", study_instance_uid: str | None = None) -> Report:
    """The report of a study that was not analysed, with the message and fix of `code`."""
    why = NotAnalysed(code, detail)
    return Report(
        Status.NOT_ANALYSED, study_instance_uid, reason=Refusal(code, why.message, why.fix)
    )


def _finding(finding: Finding) -> dict[str, Any]:
    data: dict[str, Any] = {
        "probability": finding.probability,
        "verdict": finding.verdict.value,
        "flagged": finding.flagged,
    }
    optional = {"reason": finding.reason, "side": finding.side, "grade": finding.grade}
    data |= {name: value for name, value in optional.items() if value is not None}
    data["series_instance_uid"] = finding.series_instance_uid
    data["rule_out"] = _cutoff(finding.rule_out, "sensitivity_lower_bound", "positives")
    data["rule_in"] = _cutoff(finding.rule_in, "specificity")
    data["key_slices"] = [
        {
            "sop_instance_uid": k.sop_instance_uid,
            "instance_number": k.instance_number,
            "index": k.index,
            "score": k.score,
        }
        for k in finding.key_slices
    ]
    data["saliency"] = finding.saliency
    data["overlays"] = list(finding.overlays)
    return data


def _cutoff(cutoff: Cutoff | None, *certificate: str) -> dict[str, Any] | None:
    if cutoff is None:
        return None
    return {"cutoff": cutoff.cutoff} | {name: getattr(cutoff, name) for name in certificate}


def contradictions(report: Report) -> list[str]:
    """Everything in `report` that cannot be true at once; empty for a sound report."""
    faults = []
    if report.status is Status.ANALYSED:
        missing = [t.value for t in TARGETS if t not in report.findings]
        if missing:
            faults.append(f"analysed without an answer for {', '.join(missing)}")
        if report.bundle is None:
            faults.append("analysed without a bundle")
        if not report.series:
            faults.append("analysed without a series")
        if report.reason is not None:
            faults.append("analysed and yet a reason why not")
        if report.priority is not suggest_priority(report.status, report.findings):
            faults.append(f"priority {report.priority} does not follow from the verdicts")
    elif report.findings:
        faults.append(f"{report.status} and yet answers")
    if report.status in (Status.NOT_ANALYSED, Status.NOT_APPLICABLE) and report.reason is None:
        faults.append(f"{report.status} without a reason")
    if report.status is Status.NOT_ANALYSED and report.priority is not Priority.URGENT:
        faults.append("not_analysed must be urgent")
    if report.reason is not None and report.reason.code not in REASONS:
        faults.append(f"unknown reason code {report.reason.code}")
    unknown = sorted(set(report.timings) - set(TIMINGS))
    if unknown:
        faults.append(f"unknown timings {', '.join(unknown)}")
    for target, finding in report.findings.items():
        faults += [f"{target}: {fault}" for fault in _finding_faults(target, finding)]
    return faults


def _finding_faults(target: Target, finding: Finding) -> list[str]:
    faults = []
    if finding.target is not target:
        faults.append(f"holds the answer for {finding.target}")
    if finding.side is not None and target is not Target.KIDNEY:
        faults.append("has a side")
    if finding.verdict is Verdict.NOT_ASSESSED:
        if finding.probability is not None:
            faults.append("not assessed and yet a probability")
        if finding.reason not in REASONS:
            faults.append(f"not assessed without a known reason ({finding.reason})")
        return faults
    if finding.reason is not None:
        faults.append("assessed and yet a reason why not")
    if finding.series_instance_uid is None:
        faults.append("assessed on no series")
    rule_out, rule_in = finding.rule_out, finding.rule_in
    if rule_out is None or rule_in is None:
        return [*faults, "assessed without cutoffs"]
    return faults + _verdict_faults(finding, rule_out, rule_in)


def _verdict_faults(finding: Finding, rule_out: Cutoff, rule_in: Cutoff) -> list[str]:
    """The verdict against the definition of the cutoffs (see `types.Verdict`)."""
    p = finding.probability
    if p is None or not math.isfinite(p) or not 0 <= p <= 1:
        return [f"probability {p} is not within 0 and 1"]
    if rule_in.cutoff < rule_out.cutoff:
        return ["the rule-in cutoff is below the rule-out cutoff"]
    faults = []
    if (finding.verdict is Verdict.SUSPECTED) != (p >= rule_in.cutoff):
        faults.append(f"{finding.verdict} at {p} with a rule-in cutoff of {rule_in.cutoff}")
    elif finding.verdict is Verdict.NO_FINDING and p >= rule_out.cutoff:
        faults.append(f"no_finding at {p} with a rule-out cutoff of {rule_out.cutoff}")
    elif finding.verdict is Verdict.NOT_EXCLUDED and p < rule_out.cutoff:
        faults.append(f"not_excluded at {p} with a rule-out cutoff of {rule_out.cutoff}")
    if finding.verdict is Verdict.NO_FINDING and rule_out.sensitivity_lower_bound is None:
        faults.append("no_finding without a certificate")
    return faults
