"""Figures of what came in, and warnings that they moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from triage.results.figures import Figures, figures_of
from triage.service.records.drift_models import DriftFigures, DriftWarning
from triage.service.records.models import Analysis, AuditEvent, Study, now

AT_ONCE = 200  # studies of one transaction


@dataclass(frozen=True, slots=True)
class Row:
    """One study's figures."""

    at: datetime
    bundle_sha256: str
    figures: Figures


def collect(session: Session) -> int:
    """Take the figures of current analyses that were not taken yet, of at most `AT_ONCE`; how many.

    Live studies only: a cohort is somebody's choice of old ones, and says nothing of today. An
    analysis that took the place of another one takes the place of its figures.
    """
    fresh = (
        select(Analysis)
        .join(Study, Study.id == Analysis.study_id)
        .outerjoin(DriftFigures, DriftFigures.study_id == Analysis.study_id)
        .where(
            Analysis.current,
            Analysis.finished_at.is_not(None),
            Study.background.is_(False),
            or_(DriftFigures.study_id.is_(None), DriftFigures.analysis_id != Analysis.id),
        )
        .order_by(Analysis.finished_at)
        .limit(AT_ONCE)
    )
    found = list(session.scalars(fresh))
    for analysis in found:
        figures = figures_of(analysis.report or {})
        session.execute(delete(DriftFigures).where(DriftFigures.study_id == analysis.study_id))
        session.add(
            DriftFigures(
                study_id=analysis.study_id,
                analysis_id=analysis.id,
                at=analysis.finished_at or now(),
                bundle_sha256=analysis.bundle_sha256,
                numbers=figures.numbers,
                terms=figures.terms,
            )
        )
    session.flush()
    return len(found)


def between(
    session: Session,
    since: datetime | None = None,
    until: datetime | None = None,
    bundle: str | None = None,
) -> ColumnElement[bool]:
    """Condition: from `since` on, before `until`, by that bundle (sha256)."""
    wanted: ColumnElement[bool] = DriftFigures.study_id != ""
    if since is not None:
        wanted &= DriftFigures.at >= since
    if until is not None:
        wanted &= DriftFigures.at < until
    if bundle is not None:
        wanted &= DriftFigures.bundle_sha256 == bundle
    return wanted


def oldest(
    session: Session, limit: int, since: datetime | None = None, bundle: str | None = None
) -> list[Row]:
    rows = select(DriftFigures).where(between(session, since, bundle=bundle))
    return _rows(session, rows.order_by(DriftFigures.at, DriftFigures.study_id).limit(limit))


def newest(session: Session, limit: int, since: datetime, bundle: str | None = None) -> list[Row]:
    rows = select(DriftFigures).where(between(session, since, bundle=bundle))
    return _rows(session, rows.order_by(DriftFigures.at.desc()).limit(limit))


def _rows(session: Session, query: Any) -> list[Row]:
    return [
        Row(one.at, one.bundle_sha256, Figures(dict(one.numbers), dict(one.terms)))
        for one in session.scalars(query)
    ]


def last_bundle(session: Session) -> str:
    """sha256 of the bundle that the audit log named last; "" where it named none."""
    last = select(AuditEvent.details).where(AuditEvent.action == "bundle.changed")
    found = session.scalar(last.order_by(AuditEvent.id.desc()).limit(1))
    return str((found or {}).get("sha256") or "")


# ---- warnings


def open_warnings(session: Session) -> list[DriftWarning]:
    rows = select(DriftWarning).where(DriftWarning.ended_at.is_(None))
    return list(session.scalars(rows.order_by(DriftWarning.begun_at, DriftWarning.id)))


def ended_warnings(session: Session, limit: int) -> list[DriftWarning]:
    """Newest end first."""
    rows = select(DriftWarning).where(DriftWarning.ended_at.is_not(None))
    return list(session.scalars(rows.order_by(DriftWarning.ended_at.desc()).limit(limit)))


def begin(session: Session, figure: str, against: str, details: Mapping[str, Any]) -> bool:
    """Open a warning; False where it is open already."""
    known = select(DriftWarning.id).where(
        DriftWarning.figure == figure,
        DriftWarning.against == against,
        DriftWarning.ended_at.is_(None),
    )
    if session.scalar(known) is not None:
        return False
    session.add(DriftWarning(figure=figure, against=against, details=dict(details)))
    session.flush()
    return True


def end(session: Session, warning_id: str) -> bool:
    """Close a warning; False where that was done already."""
    warning = session.get(DriftWarning, warning_id, with_for_update=True)
    if warning is None or warning.ended_at is not None:
        return False
    warning.ended_at = now()
    session.flush()
    return True
