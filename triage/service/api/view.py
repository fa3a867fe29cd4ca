"""From the records to what the API answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from triage.reasons import REASONS
from triage.service.records import analyses, lists
from triage.service.records.models import Analysis, Finding, Study
from triage.types import Status


def iso(time: datetime | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    return None if time is None else time.isoformat(timespec="milliseconds")


def reason(code: str | None, message: str = "") -> dict[str, str] | None:
    """A reason code with its message and fix; `message` where the analysis gave a fuller one."""
    if code is None:
        return None
    known = REASONS.get(code)
    if known is None:
        return {"code": code, "message": message, "fix": ""}
    return {"code": code, "message": message or known.message, "fix": known.fix}


def summaries(session: Session, studies: Sequence[Study]) -> list[dict[str, Any]]:
    """The fields of `models.StudySummary` for each study, by few queries for all."""
    ids = [study.id for study in studies]
    versions = analyses.of_studies(session, ids)
    series = lists.series_counts(session, ids)
    current = [found["current"].id for found in versions.values() if "current" in found]
    findings = analyses.findings(session, current)
    return [
        _summary(study, versions[study.id], series.get(study.id, 0), findings) for study in studies
    ]


def _summary(
    study: Study,
    versions: dict[str, Analysis],
    series: int,
    findings: dict[str, list[Finding]],
) -> dict[str, Any]:
    current, running = versions.get("current"), versions.get("running")
    under_way = running if study.status == Status.ANALYSING else None
    shown = under_way or current
    finished = study.status not in (Status.RECEIVED, Status.ANALYSING)
    return {
        "id": study.id,
        "study_instance_uid": study.study_instance_uid or None,
        "status": str(study.status),
        "priority": study.priority,
        "targets": _targets(findings.get(current.id, []) if current else []),
        "reason": reason(study.reason, study.reason_detail) if finished else None,
        "received_at": iso(study.received_at),
        "last_image_at": iso(study.last_instance_at) if study.instance_count else None,
        "finished_at": iso(study.finished_at) if finished else None,
        "flagged_at": iso(study.flagged_at),
        "acknowledged_at": iso(study.acknowledged_at),
        "version": current.version if current else None,
        "instances": study.instance_count,
        "series": series,
        "stage": shown.stage if shown else "",
        "fraction": shown.fraction if shown else 0.0,
    }


def _targets(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        f.target: {
            "verdict": f.verdict,
            "probability": f.score,
            "side": f.side,
            "grade": f.grade,
            "reason": f.reason,
        }
        for f in findings
    }


def overlays(session: Session, study_ids: Sequence[str]) -> dict[str, list[str]]:
    """study id -> names of the current analysis' overlays, as the report has them."""
    versions = analyses.of_studies(session, study_ids, reports=True)
    found = {}
    for study, of_study in versions.items():
        report = (of_study["current"].report if "current" in of_study else None) or {}
        targets = (report.get("targets") or {}).values()
        found[study] = [name for target in targets for name in target.get("overlays") or ()]
    return found


def whole(session: Session, study: Study) -> dict[str, Any]:
    """The fields of `models.Study`."""
    (found,) = summaries(session, [study])
    versions = analyses.of_study(session, study.id)
    current = next((a for a in versions if a.current), None)
    sizes = lists.bytes_by_series(session, study.id)
    series = [
        {
            "id": s.id,
            "series_instance_uid": s.series_instance_uid,
            "modality": s.modality,
            "description": s.series_description,
            "instances": s.instance_count,
            "bytes": sizes.get(s.id, 0),
            "volume": f"/api/v1/studies/{study.id}/volumes/{s.id}",
        }
        for s in study.series
    ]
    return found | {
        "report": current.report if current else None,
        "versions": [_version(a) for a in versions],
        "series_list": series,
        "timeline": _timeline(study, versions),
    }


def _version(analysis: Analysis) -> dict[str, Any]:
    finished = analysis.finished_at is not None
    message = ((analysis.report or {}).get("reason") or {}).get("message", "")
    return {
        "version": analysis.version,
        "status": str(analysis.status),
        "priority": analysis.priority,
        "reason": reason(analysis.reason, message) if finished else None,
        "started_at": iso(analysis.started_at),
        "finished_at": iso(analysis.finished_at),
        "current": analysis.current,
    }


def _timeline(study: Study, versions: Sequence[Analysis]) -> list[dict[str, Any]]:
    moments: list[tuple[datetime | None, str, str]] = [
        (study.received_at, "received", ""),
        (study.flagged_at, "flagged", ""),
        (study.acknowledged_at, "acknowledged", study.acknowledged_by or ""),
    ]
    if study.instance_count:
        moments.append((study.last_instance_at, "last image", f"{study.instance_count} images"))
    for a in versions:
        tries = f", {a.attempts} tries" if a.attempts > 1 else ""
        moments.append((a.started_at, "started", f"version {a.version}{tries}"))
        moments.append((a.finished_at, "finished", f"version {a.version}: {a.status}"))
    known = [(at, what, detail) for at, what, detail in moments if at is not None]
    return [{"at": iso(at), "what": what, "detail": detail} for at, what, detail in sorted(known)]
