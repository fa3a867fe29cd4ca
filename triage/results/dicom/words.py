"""The report in words: the same sentences in SR, FHIR and HL7."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from triage.reasons import REASONS
from triage.types import DISCLAIMER, Verdict

if TYPE_CHECKING:
    from triage.results.dicom.common import Analysis

_VERDICTS: dict[Verdict, str] = {
    Verdict.SUSPECTED: "Suspected: the {score} reached the rule-in cutoff.",
    Verdict.NOT_EXCLUDED: "Not excluded: between the cutoffs; many healthy patients are here.",
    Verdict.NO_FINDING: "No finding: below the rule-out cutoff, whose certificate holds.",
    Verdict.UNCERTIFIED: "Uncertified: not suspected, but nothing is ruled out.",
    Verdict.NOT_ASSESSED: "Not assessed: this is no negative result.",
}
VERDICT_NAMES: dict[Verdict, str] = {
    Verdict.SUSPECTED: "SUSPECTED",
    Verdict.NOT_EXCLUDED: "not excluded",
    Verdict.NO_FINDING: "no finding",
    Verdict.UNCERTIFIED: "uncertified",
    Verdict.NOT_ASSESSED: "not assessed",
}
PRIORITIES = {
    "stat": "stat: a target is suspected",
    "urgent": "urgent: something could not be judged",
    "routine": "routine",
}


def reason_text(code: str) -> str:
    """Meaning of a reason code, at most 64 characters (LO of a code meaning)."""
    text = REASONS[code].message if code in REASONS else code
    return text if len(text) <= 64 else f"{text[:61].rstrip()}..."


def certificate(analysis: Analysis, answer: Mapping[str, Any]) -> str:
    """What one verdict rests on."""
    verdict = Verdict(answer["verdict"])
    parts = [_VERDICTS[verdict].format(score=analysis.score_name)]
    if (code := answer.get("reason")) in REASONS:
        reason = REASONS[str(code)]
        parts.append(f"{code}: {reason.message} {reason.fix}")
    if (value := answer.get("probability")) is not None:
        parts.append(f"{analysis.score_name.capitalize()} {value:.3f}.")
    if cutoff := answer.get("rule_in"):
        text = f"Rule-in cutoff {cutoff['cutoff']:.3f}"
        if (specificity := cutoff.get("specificity")) is not None:
            text += f" (specificity {_down(specificity)} in calibration)"
        parts.append(f"{text}.")
    if cutoff := answer.get("rule_out"):
        parts.append(f"Rule-out cutoff {cutoff['cutoff']:.3f}{_bound(cutoff)}.")
    if verdict is not Verdict.NOT_ASSESSED:
        parts.append(f"Calibrated on {analysis.bundle.get('calibrated_on', 'no')} patients.")
    return " ".join(parts)


def _bound(cutoff: Mapping[str, Any]) -> str:
    bound, positives = cutoff.get("sensitivity_lower_bound"), cutoff.get("positives")
    if bound is None:
        return " (no certificate)"
    return (
        f" (sensitivity at least {_down(bound)} with 95 % confidence, from {positives} positives)"
    )


def _down(share: float) -> str:
    """Three digits, never rounded up: a bound stays one."""
    return f"{math.floor(share * 1000 + 1e-9) / 1000:.3f}"


def notes(analysis: Analysis) -> list[str]:
    """Priority, version, reason, warnings and disclaimer, a line each."""
    report = analysis.report
    lines = [f"{DISCLAIMER}.", f"Suggested reading priority: {PRIORITIES[report['priority']]}."]
    if reason := report.get("reason"):
        lines.append(f"Not analysed. {reason['code']}: {reason['message']} {reason['fix']}")
    if analysis.version > 1:
        replaced = ", which replaces the earlier one" if analysis.previous else ""
        lines.append(f"Version {analysis.version} of the analysis{replaced}.")
    lines += [f"Warning: {warning}" for warning in report.get("warnings") or ()]
    return [*lines, *analysis.notes]
