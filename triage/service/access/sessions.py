"""Sessions of browsers, kept here: the cookie holds 256 random bits and no meaning."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from triage.service.access.tokens import sha256
from triage.service.records.access_models import LoginSession, User
from triage.service.records.models import now

COOKIE = "triage_session"
CSRF_HEADER = "X-CSRF-Token"
SEEN_EVERY = timedelta(seconds=60)  # a request writes only where the last one is older


def begin(session: Session, user: User, idle_s: float, longest_s: float) -> str:
    """A new session; what its cookie holds. Old ones of everybody are swept away."""
    at = now()
    session.execute(
        delete(LoginSession).where(
            or_(
                LoginSession.expires_at <= at,
                LoginSession.seen_at <= at - timedelta(seconds=idle_s),
            )
        )
    )
    secret = secrets.token_urlsafe(32)
    row = LoginSession(
        id=sha256(secret),
        user_id=user.id,
        created_at=at,
        seen_at=at,
        expires_at=at + timedelta(seconds=longest_s),
    )
    session.add(row)
    return secret


def find(
    session: Session, secret: str, at: datetime, idle_s: float
) -> tuple[LoginSession, User] | None:
    """The session of this cookie and its user, if both are good at that time."""
    if len(secret) > 128:
        return None
    rows = (
        select(LoginSession, User)
        .join(User, User.id == LoginSession.user_id)
        .where(
            LoginSession.id == sha256(secret),
            LoginSession.expires_at > at,
            LoginSession.seen_at > at - timedelta(seconds=idle_s),
            User.disabled_at.is_(None),
        )
    )
    found = session.execute(rows).one_or_none()
    return None if found is None else (found[0], found[1])


def seen(session: Session, key: str, at: datetime) -> None:
    session.execute(update(LoginSession).where(LoginSession.id == key).values(seen_at=at))


def set_mask(session: Session, key: str, mask: bool) -> None:
    session.execute(update(LoginSession).where(LoginSession.id == key).values(mask=mask))


def end(session: Session, key: str) -> None:
    session.execute(delete(LoginSession).where(LoginSession.id == key))


def csrf_of(secret: str) -> str:
    """What the header of unsafe requests must hold: another site can neither read nor make it."""
    return hmac.new(secret.encode(), b"triage csrf", hashlib.sha256).hexdigest()
