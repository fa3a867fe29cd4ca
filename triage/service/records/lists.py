"""What the API asks: the list by urgency, what changed lately, numbers for the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import case, func, or_, select
from sqlalchemy.orm import Session

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
    rows = select(Study).where(*conditions(query))
    rows = rows.order_by(URGENCY, Study.received_at.desc(), Study.id.desc())
    return list(session.scalars(rows.limit(query.limit).offset(query.offset)))


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
