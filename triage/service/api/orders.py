"""Orders by FHIR, and how they fit the images."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from triage.service import errors
from triage.service.access.principal import Role, Who
from triage.service.api.common import Running, answers
from triage.service.api.models import ID, UID, example
from triage.service.api.view import iso
from triage.service.orders import taker
from triage.service.orders.compare import differences
from triage.service.orders.service_request import ordered
from triage.service.records import analyses, orders, studies
from triage.service.records.delivery_models import Order

router = APIRouter(prefix="/api/v1/orders", tags=["orders"])
REQUEST: dict[str, Any] = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "identifier": [{"type": {"coding": [{"code": "ACSN"}]}, "value": "A-1001"}],
    "priority": "stat",
    "subject": {"identifier": {"value": "P-77"}},
    "code": {"text": "CT abdomen and pelvis with contrast"},
    "bodySite": [{"text": "Abdomen"}],
}
ORDER: dict[str, Any] = {
    "id": ID,
    "accession_number": "A-1001",
    "priority": "stat",
    "body_part": "Abdomen",
    "side": "",
    "cancelled": False,
    "route": "fhir",
    "study_instance_uid": UID,
    "warnings": [],
    "received_at": "2026-11-21T13:55:00+00:00",
}


class OneOrder(BaseModel):
    """What was asked for. `warnings`: where it does not fit the images, with their reason codes."""

    id: str
    accession_number: str = Field(description="Empty where patients are masked.")
    priority: str
    body_part: str
    side: str
    cancelled: bool
    route: str
    study_instance_uid: str | None
    warnings: list[str]
    received_at: str | None
    model_config = example(ORDER)


class OrderList(BaseModel):
    orders: list[OneOrder]
    model_config = example({"orders": [ORDER]})


@router.get("", responses=answers())
def list_orders(
    service: Running, who: Who, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> OrderList:
    """Orders, newest first, with the study that belongs to each."""
    with service.records.reading() as session:
        found = [_shown(session, row, who.mask) for row in orders.newest(session, limit)]
    return OrderList.model_validate({"orders": found})


@router.post("", status_code=201, responses=answers(400))
def post_order(
    service: Running, who: Who, request: Annotated[dict[str, Any], Body(examples=[REQUEST])]
) -> OneOrder:
    """Take a FHIR R4 ServiceRequest: accession number, priority, body part, side. The same
    accession number again changes the order that is there."""
    try:
        one = ordered(request)
    except ValueError as error:
        raise errors.bad_request(f"{error}.", "Send a FHIR R4 ServiceRequest.") from error
    (order_id,) = taker.put(service.records, [one], "fhir", who.name)
    with service.records.reading() as session:
        row = session.get(Order, order_id)
        if row is None:
            raise errors.not_found("order")
        shown = _shown(session, row, who.mask)
    if not who.may(Role.VIEWER):  # who sends learns nothing of the study that is there
        shown |= {"study_instance_uid": None, "warnings": []}
    return OneOrder.model_validate(shown)


def _shown(session: Session, order: Order, mask: bool) -> dict[str, Any]:
    study = orders.study_of(session, order)
    warnings: list[str] = []
    if study is not None:
        current = analyses.current(session, study.id)
        parts = [s.body_part for s in studies.series_of(session, study.id)]
        warnings = differences(order, study, parts, current.report if current else None)
    return {
        "id": order.id,
        "accession_number": "" if mask else order.accession_number,
        "priority": order.priority,
        "body_part": order.body_part,
        "side": order.side,
        "cancelled": order.cancelled,
        "route": order.route,
        "study_instance_uid": study.study_instance_uid if study else None,
        "warnings": warnings,
        "received_at": iso(order.received_at),
    }
