"""API tokens, for programs: 256 random bits, kept as SHA-256, so nothing to guess or to steal."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.service.access import audit
from triage.service.access.principal import Role
from triage.service.access.users import AccessError, checked_name, written
from triage.service.records.access_models import ApiToken
from triage.service.records.models import now

PREFIX = "triage_"  # so that scanners of sources and logs know one
DAYS, MOST_DAYS = 90, 366


def new(
    session: Session, name: str, roles: Collection[Role], by: str, days: int = DAYS
) -> tuple[str, ApiToken]:
    """A new token, shown once, and its row. Raises AccessError."""
    name = checked_name(name)
    if not 1 <= days <= MOST_DAYS:
        raise AccessError(f"A token lives 1 to {MOST_DAYS} days.")
    if session.scalar(select(ApiToken.id).where(ApiToken.name == name)) is not None:
        raise AccessError(f"There was a token {name} already: choose another name.")
    token = PREFIX + secrets.token_urlsafe(32)
    row = ApiToken(
        name=name,
        sha256=sha256(token),
        roles=written(roles),
        created_by=by,
        expires_at=now() + timedelta(days=days),
    )
    session.add(row)
    session.flush()
    details = {"roles": row.roles, "expires_at": row.expires_at.isoformat(timespec="seconds")}
    audit.record(session, "token.added", by, name, details=details)
    return token, row


def revoke(session: Session, name: str, by: str) -> None:
    """Void from the next request on. Raises AccessError."""
    row = session.scalar(select(ApiToken).where(ApiToken.name == name.strip().lower()))
    if row is None or row.revoked_at is not None:
        raise AccessError(f"There is no valid token {name}.")
    row.revoked_at = now()
    audit.record(session, "token.revoked", by, row.name)


def every(session: Session) -> list[ApiToken]:
    return list(session.scalars(select(ApiToken).order_by(ApiToken.created_at)))


def find(session: Session, token: str, at: datetime) -> ApiToken | None:
    """The row of a token that is valid at that time."""
    if not token.startswith(PREFIX) or len(token) > 128:
        return None
    row = session.scalar(select(ApiToken).where(ApiToken.sha256 == sha256(token)))
    if row is None or row.revoked_at is not None or row.expires_at <= at:
        return None
    return row


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
