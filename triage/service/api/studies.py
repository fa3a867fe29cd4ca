"""/api/v1/studies: the list, one study, and what can be done with it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query

from triage.service.access import audit
from triage.service.access.principal import Who
from triage.service.api.common import Key, Running, answers, find_study
from triage.service.api.models import Done, Study, StudyList
from triage.service.api.view import summaries, whole
from triage.service.records import lists, studies
from triage.types import DISCLAIMER, Priority, Status

router = APIRouter(prefix="/api/v1/studies", tags=["studies"])


class Order(StrEnum):
    """Of the list."""

    NEWEST = "newest"
    URGENCY = "urgency"


@router.get("", responses=answers())
def list_studies(
    service: Running,
    status: Annotated[list[Status] | None, Query(description="Only these; repeatable.")] = None,
    priority: Annotated[list[Priority] | None, Query(description="Only these.")] = None,
    search: Annotated[
        str, Query(max_length=64, description="In patient, accession number and UID.")
    ] = "",
    cohorts: Annotated[bool, Query(description="Retrospective studies, too.")] = False,
    acknowledged: Annotated[bool | None, Query(description="Only seen, or only unseen.")] = None,
    order: Annotated[
        Order,
        Query(description="urgency: suspected first, then what could not be judged, then others."),
    ] = Order.NEWEST,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> StudyList:
    """The studies, newest first."""
    query = studies.Query(
        statuses=tuple(status or ()),
        priorities=tuple(p.value for p in priority or ()),
        search=search.replace("\x00", ""),
        background=None if cohorts else False,
        acknowledged=acknowledged,
        limit=limit,
        offset=offset,
    )
    with service.records.reading() as session:
        rows = lists.by_urgency if order is Order.URGENCY else studies.newest
        found = summaries(session, rows(session, query))
        total = studies.count(session, query)
    return StudyList.model_validate(
        {
            "studies": found,
            "total": total,
            "offset": offset,
            "limit": limit,
            "disclaimer": DISCLAIMER,
        }
    )


@router.get("/{study}", responses=answers(404))
def get_study(service: Running, study: Key) -> Study:
    """One study: report, versions, series, timeline."""
    with service.records.reading() as session:
        found = whole(session, find_study(session, study))
    return Study.model_validate(found)


@router.delete("/{study}", responses=answers(404, 409))
def delete_study(service: Running, who: Who, study: Key) -> Done:
    """Remove a study: images, results and rows. A running analysis is cancelled first."""
    with service.records.reading() as session:
        found = find_study(session, study)
    service.delete(found.id, who)
    return Done(id=found.id, status=None, detail="The study and its files are gone.")


@router.post("/{study}/cancel", responses=answers(404, 409))
def cancel_study(service: Running, who: Who, study: Key) -> Done:
    """Stop a waiting or running analysis: the study becomes not_analysed (CANCELLED)."""
    with service.records.reading() as session:
        found = find_study(session, study)
    service.cancel(found.id, who)
    return Done(id=found.id, status=None, detail="The analysis is being cancelled.")


@router.post("/{study}/analyse", status_code=202, responses=answers(404, 409))
def analyse_study(service: Running, who: Who, study: Key) -> Done:
    """Analyse once more: a new version; the present one stays current until that has ended."""
    with service.records.reading() as session:
        found = find_study(session, study)
    service.analyse_again(found.id, who)
    return Done(id=found.id, status=None, detail="A new analysis is queued.")


@router.post("/{study}/acknowledge", responses=answers(404))
def acknowledge_study(service: Running, who: Who, study: Key) -> Done:
    """Somebody has seen it; the first one stays."""
    with service.records.session() as session:
        found = find_study(session, study)
        studies.acknowledge(session, found.id, by=who.name)
        about = {"study_instance_uid": found.study_instance_uid, "address": who.address}
        audit.record(session, "study.acknowledged", who.name, found.id, details=about)
    return Done(id=found.id, status=found.status, detail="Acknowledged.")
