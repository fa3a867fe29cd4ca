"""What the admin page lists of senders, users, tokens and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from triage.service.records.access_models import ApiToken, User
from triage.service.records.models import AuditEvent, Instance


def senders(session: Session, since: datetime) -> list[dict[str, Any]]:
    """Who sent images since then: route, name, number of images, time of the last."""
    last = func.max(Instance.received_at)
    rows = (
        select(Instance.route, Instance.sender, func.count(), last)
        .where(Instance.received_at >= since)
        .group_by(Instance.route, Instance.sender)
        .order_by(last.desc())
        .limit(100)
    )
    return [
        {"route": route, "sender": sender, "images": number, "last": at}
        for route, sender, number, at in session.execute(rows)
    ]


def users(session: Session) -> Sequence[User]:
    return session.scalars(select(User).order_by(User.name)).all()


def tokens(session: Session) -> Sequence[ApiToken]:
    return session.scalars(select(ApiToken).order_by(ApiToken.name)).all()


def newest_audit(session: Session, limit: int) -> Sequence[AuditEvent]:
    """The last rows of the audit log, newest first."""
    return session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit)).all()


def audit_rows(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(AuditEvent)) or 0
