"""Orders: one for each accession number. All take a session of `Database`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from triage.service.records.delivery_models import Order
from triage.service.records.models import Study, now


@dataclass(frozen=True, slots=True)
class Ordered:
    """What one message says, clean text. `priority`: stat or routine."""

    accession_number: str
    placer_order_number: str = ""
    patient_id: str = ""
    priority: str = "routine"
    body_part: str = ""
    side: str = ""
    cancelled: bool = False


def put(session: Session, ordered: Ordered, route: str, sender: str) -> Order:
    """Note the order, or what changed of it, and give its study its place in the queue."""
    found = by_accession(session, ordered.accession_number)
    if found is None:
        found = Order(accession_number=ordered.accession_number)
        session.add(found)
    for name, value in asdict(ordered).items():
        setattr(found, name, value)
    found.route, found.sender, found.updated_at = route, sender, now()
    session.flush()
    study = study_of(session, found)
    if study is not None:
        found.study_id = study.id
        wanted = "routine" if found.cancelled else found.priority
        session.execute(update(Study).where(Study.id == study.id).values(order_priority=wanted))
    return found


def by_accession(session: Session, accession_number: str) -> Order | None:
    if not accession_number:
        return None
    return session.scalar(select(Order).where(Order.accession_number == accession_number))


def of_study(session: Session, study: Study) -> Order | None:
    """The order of these images, by accession number."""
    return by_accession(session, study.accession_number)


def study_of(session: Session, order: Order) -> Study | None:
    """The newest study with the order's accession number."""
    rows = select(Study).where(Study.accession_number == order.accession_number)
    return session.scalar(rows.order_by(Study.received_at.desc()).limit(1))


def priority_for(session: Session, accession_number: str) -> str:
    """What the order says of a study that just came: stat or routine."""
    found = by_accession(session, accession_number)
    return found.priority if found is not None and not found.cancelled else "routine"


def newest(session: Session, limit: int = 100) -> list[Order]:
    rows = select(Order).order_by(Order.received_at.desc(), Order.id).limit(limit)
    return list(session.scalars(rows))
