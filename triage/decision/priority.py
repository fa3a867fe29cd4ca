"""Suggested priority of a study. It is a suggestion: the hospital's own list is never reordered."""

from __future__ import annotations

from collections.abc import Mapping

from triage.types import TARGETS, Finding, Priority, Status, Target, Verdict


def suggest_priority(status: Status, findings: Mapping[Target, Finding]) -> Priority:
    """Any suspected -> stat; not analysed or any target not assessed -> urgent; else routine.

    A study under way, and one of which a target has no finding at all, counts as not assessed:
    nothing unanalysed sinks below an analysed study without suspicion. A study without an
    abdominal CT (not_applicable) is routine; it is not on the list.
    """
    if any(finding.flagged for finding in findings.values()):
        return Priority.STAT
    if status is Status.NOT_APPLICABLE:
        return Priority.ROUTINE
    assessed = {t for t, f in findings.items() if f.verdict is not Verdict.NOT_ASSESSED}
    if status is Status.ANALYSED and assessed == set(TARGETS):
        return Priority.ROUTINE
    return Priority.URGENT
