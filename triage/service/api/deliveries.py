"""Deliveries: what went where, what was given up, and once more by hand."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from triage.service import errors
from triage.service.access import audit
from triage.service.access.principal import Who
from triage.service.api.common import Key, Running, answers, find_study
from triage.service.api.models import ID, UID, example
from triage.service.api.view import iso
from triage.service.records import deliveries
from triage.service.records.models import Analysis, Delivery, Study

router = APIRouter(prefix="/api/v1", tags=["deliveries"])
DELIVERY: dict[str, Any] = {
    "id": ID,
    "study_instance_uid": UID,
    "version": 1,
    "destination": "dicom PACS@192.0.2.7:104",
    "kind": "dicom",
    "state": "dead",
    "attempts": 12,
    "next_try_at": None,
    "last_error": "PACS at 192.0.2.7:104 not reached",
    "created_at": "2026-11-21T14:04:02+00:00",
    "done_at": None,
}


class State(StrEnum):
    """waiting is tried again; dead was given up; superseded was overtaken by a newer result."""

    WAITING = deliveries.WAITING
    DONE = deliveries.DONE
    DEAD = deliveries.DEAD
    SUPERSEDED = deliveries.SUPERSEDED


class OneDelivery(BaseModel):
    """One result on its way to one destination."""

    id: str
    study_instance_uid: str
    version: int = Field(description="Of the analysis.")
    destination: str
    kind: str
    state: State
    attempts: int
    next_try_at: str | None
    last_error: str
    created_at: str | None
    done_at: str | None
    model_config = example(DELIVERY)


class DeliveryList(BaseModel):
    deliveries: list[OneDelivery]
    by_state: dict[str, int]
    model_config = example(
        {
            "deliveries": [DELIVERY],
            "by_state": {"waiting": 0, "done": 31, "dead": 1, "superseded": 2},
        }
    )


class Resent(BaseModel):
    """How many deliveries are due again."""

    resent: int
    model_config = example({"resent": 1})


@router.get("/deliveries", responses=answers())
def list_deliveries(
    service: Running,
    state: Annotated[State | None, Query(description="Only these.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> DeliveryList:
    """The outbox, newest first; `state=dead` is what somebody must look at."""
    with service.records.reading() as session:
        rows = deliveries.newest(session, state, limit=limit)
        shown = [_shown(d, a, session.get(Study, a.study_id)) for d, a in rows]
        found = {"deliveries": shown, "by_state": deliveries.counts(session)}
    return DeliveryList.model_validate(found)


@router.post("/deliveries/{delivery}/resend", status_code=202, responses=answers(404))
def resend_delivery(
    service: Running, who: Who, delivery: Annotated[str, Path(max_length=64, examples=[ID])]
) -> Resent:
    """Send one once more, whatever became of it: the same objects, under the same identifiers."""
    with service.records.session() as session:
        row = None if "\x00" in delivery else deliveries.resend(session, delivery)
        if row is None:
            raise errors.not_found("delivery", "GET /api/v1/deliveries lists them.")
        _record(session, who, row.id, row.destination)
    service.deliveries.outbox.wake()
    return Resent(resent=1)


@router.post("/studies/{study}/deliver", status_code=202, responses=answers(404))
def deliver_study(service: Running, who: Who, study: Key) -> Resent:
    """Send the current result of a study once more to wherever it goes."""
    with service.records.session() as session:
        found = find_study(session, study)
        rows = [d for d, a in deliveries.newest(session, study_id=found.id, limit=500) if a.current]
        for row in rows:
            deliveries.resend(session, row.id)
        _record(session, who, found.id, f"{len(rows)} destinations")
    service.deliveries.outbox.wake()
    return Resent(resent=len(rows))


def _record(session: Any, who: Who, what: str, where: str) -> None:
    about = {"destination": where, "by hand": True, "address": who.address}
    audit.record(session, "delivery.sent", who.name, what, details=about)


def _shown(row: Delivery, analysis: Analysis, study: Study | None) -> dict[str, Any]:
    return {
        "id": row.id,
        "study_instance_uid": study.study_instance_uid if study else "",
        "version": analysis.version,
        "destination": row.destination,
        "kind": row.kind,
        "state": row.state,
        "attempts": row.attempts,
        "next_try_at": iso(row.next_try_at) if row.state == deliveries.WAITING else None,
        "last_error": row.last_error,
        "created_at": iso(row.created_at),
        "done_at": iso(row.done_at),
    }
