"""Cohorts and quarantine."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session

from triage.service import errors
from triage.service.api.common import Running, answers
from triage.service.api.models import CohortProgress, Cohorts, Quarantine
from triage.service.api.view import iso
from triage.service.records import cohorts, quarantine
from triage.service.records.models import Cohort

router = APIRouter(prefix="/api/v1", tags=["cohorts and quarantine"])


@router.get("/cohorts", responses=answers())
def list_cohorts(service: Running, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> Cohorts:
    """Retrospective studies that were submitted together, newest first."""
    with service.records.reading() as session:
        found = [_progress(session, cohort) for cohort in cohorts.newest(session, limit)]
    return Cohorts.model_validate({"cohorts": found})


@router.get("/cohorts/{cohort}", responses=answers(404))
def get_cohort(service: Running, cohort: Annotated[str, Path(max_length=128)]) -> CohortProgress:
    """How far one cohort is."""
    with service.records.reading() as session:
        found = None if "\x00" in cohort else cohorts.get(session, cohort)
        if found is None:
            raise errors.not_found("cohort", "GET /api/v1/cohorts lists all.")
        progress = _progress(session, found)
    return CohortProgress.model_validate(progress)


@router.get("/quarantine", responses=answers())
def list_quarantine(
    service: Running, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> Quarantine:
    """Files that were taken and belong to no study: nobody analyses them, somebody must look."""
    with service.records.reading() as session:
        by_reason = quarantine.count_by_reason(session)
        files = [
            {
                "id": f.id,
                "reason": f.reason,
                "meaning": quarantine.REASONS.get(f.reason, ""),
                "detail": f.detail,
                "sop_instance_uid": f.sop_instance_uid,
                "size": f.size,
                "sender": f.sender,
                "times": f.times,
                "received_at": iso(f.received_at),
            }
            for f in quarantine.newest(session, limit)
        ]
    return Quarantine.model_validate({"files": files, "by_reason": by_reason})


def _progress(session: Session, cohort: Cohort) -> dict[str, Any]:
    return {
        "id": cohort.id,
        "name": cohort.name,
        "created_at": iso(cohort.created_at),
        "cancelled_at": iso(cohort.cancelled_at),
        "counts": cohorts.progress(session, cohort.id),
    }
