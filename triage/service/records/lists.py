"""What the API asks: the list by urgency, what changed lately, numbers for the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from triage.service.records.models import (
    Instance,
    Series,
    Study,
)
from triage.service.records.studies import PENDING, Query, conditions
from triage.types import Priority, Status

# The list by urgency. What is not analysed, for whatever reason and however old, stands above every
# analysed study without suspicion; a study that is analysed anew keeps its suspicion meanwhile.
URGENCY = case(
    (Study.status == Status.NOT_APPLICABLE, 3),
    (Study.priority == Priority.STAT.value, 0),
    (Study.status != Status.ANALYSED, 1),
    (Study.priority == Priority.ROUTINE.value, 2),
    else_=1,
)


def by_urgency(session: Session, query: Query) -> list[Study]:
    """Studies of the list: suspected first, then what nobody could judge, then the others."""
    return ordered(session, query, "urgency")


def urgency(study: Study) -> int:
    """What `URGENCY` says of one study."""
    if study.status == Status.NOT_APPLICABLE:
        return 3
    if study.priority == Priority.STAT.value:
        return 0
    if study.status != Status.ANALYSED:
        return 1
    return 2 if study.priority == Priority.ROUTINE.value else 1


_NEWEST = (Study.received_at.desc(), Study.id.desc())
_OLDEST = (Study.received_at, Study.id)
ORDERS: dict[str, tuple[ColumnElement[Any] | InstrumentedAttribute[Any], ...]] = {
    "urgency": (URGENCY, *_NEWEST),
    "newest": _NEWEST,
    "oldest": _OLDEST,
    "patient": (Study.patient_name == "", func.lower(Study.patient_name), *_NEWEST),
}


def ordered(session: Session, query: Query, order: str) -> list[Study]:
    """Studies of the list in one of `ORDERS`."""
    rows = select(Study).where(*conditions(query)).order_by(*ORDERS[order])
    return list(session.scalars(rows.limit(query.limit).offset(query.offset)))


def among(session: Session, query: Query, ids: Sequence[str]) -> list[Study]:
    """Those of these studies that `query` asks for, on whatever page."""
    rows = select(Study).where(*conditions(query), Study.id.in_(list(ids)))
    return list(session.scalars(rows))


def place(study: Study, order: str) -> str:
    """A text that sorts as `ordered` does, byte by byte: where a new row belongs on a list."""
    moment = int(study.received_at.timestamp() * 1e6)
    newest = f"{10**17 - moment:018d}" + study.id.translate(_TURNED)
    if order == "urgency":
        return f"{urgency(study)}{newest}"
    if order == "patient":
        name = study.patient_name.lower()
        return f"{int(not name)}{name[:60].encode().hex():0<480}{newest}"
    return f"{moment:018d}{study.id}" if order == "oldest" else newest


_TURNED = str.maketrans("0123456789abcdef", "fedcba9876543210")  # hexadecimal digits, backwards


def changed(session: Session, since: datetime, limit: int = 2000) -> list[Study]:
    """Studies that are under way or changed after `since`; waiting retrospective ones are left out.

    Oldest first, so that whoever compares sees things in their order.
    """
    moved = (Study.last_instance_at, Study.finished_at, Study.flagged_at, Study.acknowledged_at)
    rows = select(Study).where(
        or_(
            Study.status == Status.ANALYSING,
            (Study.status == Status.RECEIVED) & Study.background.is_(False),
            *(column >= since for column in moved),
        )
    )
    newest = session.scalars(rows.order_by(Study.received_at.desc(), Study.id.desc()).limit(limit))
    return list(newest)[::-1]


def series_counts(session: Session, study_ids: Sequence[str]) -> dict[str, int]:
    """study id -> number of its series."""
    rows = select(Series.study_id, func.count()).where(Series.study_id.in_(list(study_ids)))
    return {row[0]: row[1] for row in session.execute(rows.group_by(Series.study_id))}


def bytes_by_series(session: Session, study_id: str) -> dict[str, int]:
    """series id -> bytes on disk."""
    rows = select(Instance.series_id, func.sum(Instance.size)).where(Instance.study_id == study_id)
    return {s: int(size) for s, size in session.execute(rows.group_by(Instance.series_id))}


def series_of(session: Session, study_id: str, key: str) -> Series | None:
    """The series of this study whose id or SeriesInstanceUID is `key`."""
    mine = select(Series).where(Series.study_id == study_id)
    return session.scalar(mine.where(or_(Series.id == key, Series.series_instance_uid == key)))


def instances_of_series(session: Session, series_id: str) -> list[Instance]:
    rows = select(Instance).where(Instance.series_id == series_id)
    return list(session.scalars(rows.order_by(Instance.id)))


def waiting(session: Session) -> dict[str, int]:
    """Studies without an end yet: "live" and "cohort"."""
    rows = select(Study.background, func.count()).where(Study.status.in_(PENDING))
    found = {bool(row[0]): int(row[1]) for row in session.execute(rows.group_by(Study.background))}
    return {"live": found.get(False, 0), "cohort": found.get(True, 0)}


def count_instances(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Instance)) or 0
