"""The outbox: what results go where, and how far that is. All take a session of `Database`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from triage.service.records.delivery_models import Destination
from triage.service.records.models import Analysis, Delivery, Study, new_id, now

WAITING, DONE, DEAD, SUPERSEDED = STATES = ("waiting", "done", "dead", "superseded")
_AT_ONCE = 500  # rows that one look adds


def know(session: Session, names: Sequence[str]) -> None:
    """At start: these destinations are configured, from now on where they are new; others are
    forgotten. What the last process was about to send is due at once."""
    session.execute(update(Delivery).where(Delivery.state == WAITING).values(next_try_at=now()))
    session.execute(delete(Destination).where(Destination.name.not_in(list(names))))
    there = set(session.scalars(select(Destination.name)))
    session.add_all(Destination(name=name) for name in names if name not in there)


def plan(session: Session, kinds: dict[str, str]) -> int:
    """Put current results into the outbox that are not in it; `kinds`: destination -> kind.

    A result that another one replaced and that did not arrive yet is `superseded`. Retrospective
    studies (cohorts) are sent nowhere. Returns how many were added.
    """
    added = 0
    for name, kind in kinds.items():
        there = select(Delivery.id).where(
            Delivery.analysis_id == Analysis.id, Delivery.destination == name
        )
        since = select(Destination.since).where(Destination.name == name).scalar_subquery()
        rows = (
            select(Analysis.id, Analysis.study_id)
            .join(Study, Study.id == Analysis.study_id)
            .where(
                Analysis.current,
                Analysis.finished_at >= since,
                Study.background.is_(False),
                ~there.exists(),
            )
            .limit(_AT_ONCE)
        )
        for analysis_id, study_id in session.execute(rows).all():
            _supersede(session, study_id, name)
            row = {
                "id": new_id(),
                "analysis_id": analysis_id,
                "destination": name,
                "kind": kind,
                "next_try_at": now(),
            }
            session.execute(insert(Delivery), [row])
            added += 1
    return added


def _supersede(session: Session, study_id: str, destination: str) -> None:
    older = select(Analysis.id).where(Analysis.study_id == study_id)
    session.execute(
        update(Delivery)
        .where(
            Delivery.analysis_id.in_(older),
            Delivery.destination == destination,
            Delivery.state.in_([WAITING, DEAD]),
        )
        .values(state=SUPERSEDED, next_try_at=None)
        .execution_options(synchronize_session=False)
    )


def take(session: Session, destination: str, lease_s: float) -> str | None:
    """The delivery that is due longest at this destination; nobody else gets it for `lease_s`."""
    rows = (
        select(Delivery)
        .where(
            Delivery.state == WAITING,
            Delivery.destination == destination,
            Delivery.next_try_at <= now(),
        )
        .order_by(Delivery.next_try_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = session.scalar(rows)
    if found is None:
        return None
    found.attempts += 1
    found.next_try_at = now() + timedelta(seconds=lease_s)
    return found.id


def get(session: Session, delivery_id: str) -> Delivery | None:
    return session.get(Delivery, delivery_id)


def finish(session: Session, delivery_id: str) -> Delivery | None:
    """It arrived. None if it is gone."""
    found = get(session, delivery_id)
    if found is not None:
        found.state, found.done_at, found.next_try_at, found.last_error = DONE, now(), None, ""
    return found


def fail(
    session: Session, delivery_id: str, error: str, next_try_at: datetime | None
) -> Delivery | None:
    """It did not arrive; `next_try_at` None gives it up. None if it is gone."""
    found = get(session, delivery_id)
    if found is not None and found.state == WAITING:
        found.last_error = error[:500]
        found.next_try_at = next_try_at
        found.state = DEAD if next_try_at is None else WAITING
    return found


def resend(session: Session, delivery_id: str) -> Delivery | None:
    """By hand: due at once, whatever became of it; None if there is none such."""
    found = get(session, delivery_id)
    if found is not None:
        found.state, found.attempts, found.next_try_at = WAITING, 0, now()
        found.done_at, found.last_error = None, ""
    return found


def resend_dead(session: Session) -> int:
    """All that were given up, once more; how many."""
    result = session.execute(
        update(Delivery)
        .where(Delivery.state == DEAD)
        .values(state=WAITING, attempts=0, next_try_at=now(), last_error="")
    )
    return int(result.rowcount)  # type: ignore[attr-defined]


def newest(
    session: Session, state: str | None = None, study_id: str | None = None, limit: int = 100
) -> list[tuple[Delivery, Analysis]]:
    """Deliveries with the analysis that they carry, newest first."""
    rows = select(Delivery, Analysis).join(Analysis, Analysis.id == Delivery.analysis_id)
    if state is not None:
        rows = rows.where(Delivery.state == state)
    if study_id is not None:
        rows = rows.where(Analysis.study_id == study_id)
    rows = rows.order_by(Delivery.created_at.desc(), Delivery.id).limit(limit)
    return [(delivery, analysis) for delivery, analysis in session.execute(rows)]


def counts(session: Session) -> dict[str, int]:
    """Number of deliveries by state; every state is a key."""
    rows = session.execute(select(Delivery.state, func.count()).group_by(Delivery.state))
    return dict.fromkeys(STATES, 0) | {str(state): int(number) for state, number in rows}


def sent_before(session: Session, analysis: Analysis, kinds: Sequence[str]) -> str:
    """Id of the newest earlier analysis of the study that arrived in one of these kinds, or ""."""
    earlier = aliased(Analysis)
    rows = (
        select(earlier.id)
        .join(Delivery, Delivery.analysis_id == earlier.id)
        .where(
            earlier.study_id == analysis.study_id,
            earlier.version < analysis.version,
            Delivery.kind.in_(list(kinds)),
            Delivery.state == DONE,
        )
        .order_by(earlier.version.desc())
        .limit(1)
    )
    return session.scalar(rows) or ""
