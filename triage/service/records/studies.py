"""Studies: what the lists and the intake read and write. All take a session of `Database`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from triage.service.records.models import (
    Analysis,
    Counter,
    Instance,
    Quarantined,
    Series,
    Study,
    now,
)
from triage.types import Status

FINISHED = (Status.ANALYSED, Status.NOT_ANALYSED, Status.NOT_APPLICABLE)
PENDING = (Status.RECEIVED, Status.ANALYSING)


def get(session: Session, study_id: str) -> Study | None:
    """The study with this id of ours."""
    return session.get(Study, study_id)


def by_uid(session: Session, study_instance_uid: str) -> Study | None:
    return session.scalar(select(Study).where(Study.study_instance_uid == study_instance_uid))


def find(session: Session, key: str) -> Study | None:
    """The study whose id or StudyInstanceUID is `key`."""
    return get(session, key) or by_uid(session, key)


@dataclass(frozen=True, slots=True)
class Query:
    """What a list shows. `search` looks into patient id and name, accession number and UID."""

    statuses: Sequence[Status] = ()
    priorities: Sequence[str] = ()
    search: str = ""
    background: bool | None = False  # None: both live and retrospective studies
    acknowledged: bool | None = None
    received_after: datetime | None = None
    limit: int = 100
    offset: int = 0


def newest(session: Session, query: Query = Query()) -> list[Study]:
    """Studies of the list, newest first."""
    rows = select(Study).where(*conditions(query))
    rows = rows.order_by(Study.received_at.desc(), Study.id.desc())
    return list(session.scalars(rows.limit(query.limit).offset(query.offset)))


def count(session: Session, query: Query = Query()) -> int:
    rows = select(func.count()).select_from(Study).where(*conditions(query))
    return session.scalar(rows) or 0


def conditions(query: Query) -> list[ColumnElement[bool]]:
    """What `query` asks, as conditions on `Study`."""
    found: list[ColumnElement[bool]] = []
    if query.statuses:
        found.append(Study.status.in_(list(query.statuses)))
    if query.priorities:
        found.append(Study.priority.in_(list(query.priorities)))
    if query.background is not None:
        found.append(Study.background.is_(query.background))
    if query.acknowledged is not None:
        there = Study.acknowledged_at.is_not(None)
        found.append(there if query.acknowledged else ~there)
    if query.received_after is not None:
        found.append(Study.received_at > query.received_after)
    if query.search:
        columns = (
            Study.patient_id,
            Study.patient_name,
            Study.accession_number,
            Study.study_instance_uid,
        )
        found.append(or_(*(c.icontains(query.search, autoescape=True) for c in columns)))
    return found


def count_by_status(session: Session) -> dict[Status, int]:
    """Number of studies of each status, live and retrospective; every status is a key."""
    rows = session.execute(select(Study.status, func.count()).group_by(Study.status))
    found = {Status(status): number for status, number in rows}
    return {status: found.get(status, 0) for status in Status}


def instances(session: Session, study_id: str) -> list[Instance]:
    """The stored files of one study, in the order of arrival."""
    rows = select(Instance).where(Instance.study_id == study_id)
    return list(session.scalars(rows.order_by(Instance.received_at, Instance.id)))


def series_of(session: Session, study_id: str) -> list[Series]:
    return list(session.scalars(select(Series).where(Series.study_id == study_id)))


# ---- completeness


def is_incomplete(study: Study) -> bool:
    """Fewer images than announced, or a sender that broke off: no negative verdict is allowed."""
    missing = study.expected_instances is not None and (
        study.instance_count < study.expected_instances
    )
    return study.interrupted or missing


def all_announced_are_there(session: Session, study: Study) -> bool:
    """Every image that the study, or else each of its series, announced has arrived."""
    if study.expected_instances is not None:
        return study.instance_count >= study.expected_instances
    every = series_of(session, study.id)
    return bool(every) and all(
        s.expected_instances is not None and s.instance_count >= s.expected_instances for s in every
    )


def expect(session: Session, study_id: str, instances: int | None) -> None:
    """How many images the study will have, as an order or a PACS says."""
    session.execute(update(Study).where(Study.id == study_id).values(expected_instances=instances))


def declare_ready(session: Session, study_id: str, images_version: int) -> bool:
    """The images of this version are complete; False if later ones arrived meanwhile."""
    result = session.execute(
        update(Study)
        .where(Study.id == study_id, Study.images_version == images_version)
        .values(ready_version=images_version)
    )
    return bool(result.rowcount)  # type: ignore[attr-defined]


def end_transfer(session: Session, study_ids: Sequence[str], lacking: bool) -> list[str]:
    """A transfer of these studies ended; `lacking`: images may be missing.

    Returns those that were incomplete, were analysed as such, and are whole now: a new version of
    their images, though no image is new, for what was said of them needs saying anew.
    """
    asked = Study.id.in_(list(study_ids))
    if lacking:
        session.execute(update(Study).where(asked).values(interrupted=True))
        return []
    known = asked & Study.interrupted & (Study.ready_version >= Study.images_version)
    again = list(session.scalars(select(Study.id).where(known).order_by(Study.id)))
    session.execute(
        update(Study)
        .where(Study.id.in_(again))
        .values(images_version=Study.images_version + 1, status=Status.RECEIVED)
    )
    session.execute(update(Study).where(asked).values(interrupted=False))
    return again


def without_analysis(session: Session) -> list[Study]:
    """Studies with images whose current images version has no finished analysis."""
    done = select(Analysis.id).where(
        Analysis.study_id == Study.id,
        Analysis.images_version == Study.images_version,
        Analysis.finished_at.is_not(None),
    )
    rows = select(Study).where(Study.instance_count > 0, ~done.exists())
    return list(session.scalars(rows.order_by(Study.received_at)))


def senders(session: Session, study_id: str, images_version: int) -> list[tuple[str, str, int]]:
    """(route, sender, number of images) of what came with this images version."""
    rows = (
        select(Instance.route, Instance.sender, func.count())
        .where(Instance.study_id == study_id, Instance.images_version == images_version)
        .group_by(Instance.route, Instance.sender)
        .order_by(Instance.route, Instance.sender)
    )
    return [(route, sender, number) for route, sender, number in session.execute(rows)]


# ---- people


def acknowledge(session: Session, study_id: str, by: str) -> bool:
    """Somebody has seen it; the first one stays. False if there is no such study."""
    study = get(session, study_id)
    if study is None:
        return False
    if study.acknowledged_at is None:
        study.acknowledged_at, study.acknowledged_by = now(), by
    return True


def set_order_priority(session: Session, study_id: str, priority: str) -> None:
    """`stat` or `routine`, as the order says."""
    if priority not in ("stat", "routine"):
        raise ValueError(f"Expected stat or routine, got {priority!r}")
    session.execute(update(Study).where(Study.id == study_id).values(order_priority=priority))


def delete(session: Session, study_id: str) -> bool:
    """Remove every row of one study; its files are the caller's (`images.Files.remove_study`)."""
    study = get(session, study_id)
    if study is None:
        return False
    session.delete(study)
    session.flush()
    return True


def quarantined_paths(session: Session, study_id: str) -> list[str]:
    """Paths of the files in quarantine that name this study; their rows go with the study."""
    return list(session.scalars(select(Quarantined.path).where(Quarantined.study_id == study_id)))


def expired(session: Session, before: datetime) -> list[str]:
    """Ids of finished studies without a new image since `before` that nobody wants kept."""
    rows = select(Study.id).where(
        Study.last_instance_at < before, Study.keep.is_(False), Study.status.in_(FINISHED)
    )
    return list(session.scalars(rows))


# ---- counters


def add_to_counter(session: Session, name: str, by: int = 1) -> None:
    """A counter that outlives a restart, such as `intake_duplicates`."""
    changed = session.execute(
        update(Counter).where(Counter.name == name).values(value=Counter.value + by)
    )
    if not changed.rowcount:  # type: ignore[attr-defined]
        session.add(Counter(name=name, value=by))
        session.flush()


def counters(session: Session) -> dict[str, int]:
    return {c.name: c.value for c in session.scalars(select(Counter))}


def patient_fields(study: Study) -> dict[str, Any]:
    """What identifies the patient: to be masked on request, and never to be logged."""
    return {
        "patient_id": study.patient_id,
        "patient_name": study.patient_name,
        "patient_birth_date": study.patient_birth_date,
        "accession_number": study.accession_number,
    }
