"""Users and their passwords (argon2id, RFC 9106)."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from triage.service.access import audit
from triage.service.access.principal import Role
from triage.service.records.access_models import LoginSession, User
from triage.service.records.models import now

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
OURS = frozenset({"local", "service", "retention", "console"})  # actors that are no users
SHORTEST, LONGEST = 12, 1024  # characters of a password
HASHER = PasswordHasher()  # RFC 9106, 4: the second recommended option (64 MiB)


class AccessError(ValueError):
    """What was asked makes no sense, in one line for people."""


def add(session: Session, name: str, password: str, roles: Collection[Role], by: str) -> User:
    """A new user. Raises AccessError."""
    name = checked_name(name)
    if by_name(session, name) is not None:
        raise AccessError(f"There is a user {name} already.")
    user = User(name=name, password_hash=hashed(name, password), roles=written(roles))
    session.add(user)
    session.flush()
    audit.record(session, "user.added", by, name, details={"roles": user.roles})
    return user


def set_password(session: Session, name: str, password: str, by: str) -> None:
    """A new password; every session of the user ends. Raises AccessError."""
    user = existing(session, name)
    user.password_hash, user.password_at = hashed(user.name, password), now()
    _end_sessions(session, user)
    audit.record(session, "user.changed", by, user.name, details={"what": "password"})


def set_roles(session: Session, name: str, roles: Collection[Role], by: str) -> None:
    """Other roles, from the next request on. Raises AccessError."""
    user = existing(session, name)
    before, user.roles = user.roles, written(roles)
    details = {"what": "roles", "before": before, "after": user.roles}
    audit.record(session, "user.changed", by, user.name, details=details)


def set_disabled(session: Session, name: str, disabled: bool, by: str) -> None:
    """A disabled user cannot log in; every session ends. Raises AccessError."""
    user = existing(session, name)
    user.disabled_at = now() if disabled else None
    _end_sessions(session, user)
    what = "disabled" if disabled else "enabled"
    audit.record(session, "user.changed", by, user.name, details={"what": what})


def every(session: Session) -> list[User]:
    return list(session.scalars(select(User).order_by(User.name)))


def by_name(session: Session, name: str) -> User | None:
    return session.scalar(select(User).where(User.name == name.strip().lower()))


def existing(session: Session, name: str) -> User:
    """Raises AccessError."""
    user = by_name(session, name)
    if user is None:
        raise AccessError(f"There is no user {name}.")
    return user


def any_active(session: Session) -> bool:
    """Whether anybody could log in."""
    return session.scalar(select(User.id).where(User.disabled_at.is_(None)).limit(1)) is not None


def any_at_all(session: Session) -> bool:
    """Whether a user was ever added: a login is needed then, also where all are disabled."""
    return session.scalar(select(User.id).limit(1)) is not None


def checked_name(name: str) -> str:
    """In lower case. Raises AccessError."""
    name = name.strip().lower()
    if not NAME.fullmatch(name) or name in OURS:
        raise AccessError(
            "A name has 1 to 64 of a-z, 0-9, dot, hyphen, underscore and @, begins with a letter "
            f"or digit, and is none of {', '.join(sorted(OURS))}."
        )
    return name


def hashed(name: str, password: str) -> str:
    """argon2id. Raises AccessError where the password is too short (NIST SP 800-63B, 3.1.1.2)."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise AccessError(f"A password has {SHORTEST} to {LONGEST} characters.")
    if name in password.lower() and len(password) < len(name) + SHORTEST:
        raise AccessError("The password holds the name: choose another.")
    return HASHER.hash(password)


def right_password(password_hash: str | None, password: str) -> bool:
    """Takes as long for a user that does not exist (None) as for one that does."""
    known = password_hash is not None
    try:
        HASHER.verify(password_hash or _nobody(), password[: LONGEST + 1])
    except (VerificationError, InvalidHashError):
        return False
    return known


@cache
def _nobody() -> str:
    return HASHER.hash("nobody has this password")


def written(roles: Collection[Role]) -> str:
    """Roles as they stand in the database. Raises AccessError where there is none."""
    if not roles:
        raise AccessError(f"At least one role is needed: {', '.join(Role)}.")
    return " ".join(role.value for role in Role if role in roles)


def roles_of(text: str) -> frozenset[Role]:
    """Roles from the database; a name that this version does not know gives no right."""
    return frozenset(Role(word) for word in text.split() if word in set(Role))


def _end_sessions(session: Session, user: User) -> None:
    session.execute(delete(LoginSession).where(LoginSession.user_id == user.id))
