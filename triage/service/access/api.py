"""/api/v1/session: log in, log out, who am I."""

from __future__ import annotations

import math
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from triage.service.access import audit, sessions, users
from triage.service.access.attempts import Attempts
from triage.service.access.bind import is_encrypted
from triage.service.access.principal import Principal, Role, Who
from triage.service.api.common import Running, answers
from triage.service.api.models import example
from triage.service.errors import ApiError, conflict, unauthorized

router = APIRouter(prefix="/api/v1/session", tags=["session"])
AT_ONCE = 2  # passwords that are checked: each takes 64 MiB and a core


class Login(BaseModel):
    """Name and password of a user."""

    model_config = example({"name": "ada", "password": "correct horse battery"})
    name: Annotated[str, Field(min_length=1, max_length=256)]
    password: Annotated[str, Field(min_length=1, max_length=users.LONGEST)]


class Session(BaseModel):
    """Who asks."""

    model_config = example(
        {"user": "ada", "roles": ["viewer"], "csrf": "3f1c...", "login": True, "mask": False}
    )
    user: str | None = Field(description="Null where nobody is logged in.")
    roles: list[Role]
    csrf: str = Field(description="For X-CSRF-Token of every request that changes something.")
    login: bool = Field(description="Whether this service asks for a login.")
    mask: bool = Field(description="Patient fields are hidden.")


class Change(BaseModel):
    """What a session may change of itself."""

    model_config = example({"mask": True})
    mask: bool


@router.post("", responses=answers(401, 429))
async def start_session(
    service: Running, login: Login, request: Request, response: Response
) -> Session:
    """Log in. The cookie `triage_session` is set; a name or an address that guesses has to wait."""
    address = service.guard.address(request)
    secret, who = await anyio.to_thread.run_sync(
        _log_in, service, login, address, limiter=_limiter(request.app.state)
    )
    response.set_cookie(
        sessions.COOKIE,
        secret,
        max_age=int(service.settings.session_s),
        path="/",
        secure=is_encrypted(service.settings),
        httponly=True,
        samesite="strict",
    )
    return _shown(who, True)


@router.get("", responses=answers(401))
def get_session(service: Running, request: Request) -> Session:
    """Who asks, with what rights, and whether a login is needed."""
    return _shown(service.guard.identify(request), service.guard.login_needed())


@router.put("", responses=answers(401, 403, 409))
def change_session(service: Running, who: Who, change: Change) -> Session:
    """Hide patient fields for this session, or show them where the service allows it."""
    if who.how != "session":
        raise conflict("There is no session.", "Ask with ?mask=true, or set TRIAGE_MASK_PATIENTS.")
    with service.records.session() as session:
        sessions.set_mask(session, who.key, change.mask)
    mask = change.mask or service.settings.mask_patients
    return Session(user=who.name, roles=_sorted(who), csrf=who.csrf, login=True, mask=mask)


@router.delete("", status_code=204, responses=answers(401, 403))
def end_session(service: Running, who: Who, response: Response) -> None:
    """Log out: the session is gone on our side, too."""
    if who.how == "session":
        with service.records.session() as session:
            sessions.end(session, who.key)
            audit.record(session, "logout", who.name, who.name, details={"address": who.address})
    response.delete_cookie(
        sessions.COOKIE,
        path="/",
        secure=is_encrypted(service.settings),
        httponly=True,
        samesite="strict",
    )


def _log_in(service: Any, login: Login, address: str) -> tuple[str, Principal]:
    attempts: Attempts = service.attempts
    name = login.name.strip().lower()
    wait = attempts.wait_s(name, address)
    if wait:
        seconds = str(math.ceil(wait))
        raise ApiError(
            429,
            "TOO_MANY_TRIES",
            f"Too many logins failed; {seconds} s to wait.",
            "Wait, or ask an administrator for a new password: triage user password.",
            {"Retry-After": seconds},
        )
    attempts.begin(name, address)
    with service.records.reading() as session:
        user = users.by_name(session, name)
        known = user is not None and user.disabled_at is None
        password_hash = user.password_hash if user is not None and known else None
    right = users.right_password(password_hash, login.password)
    # a name that is no user's may be a password, typed into the wrong field: it is not recorded
    actor = user.name if user is not None else "unknown"
    with service.records.session() as session:
        secret = ""
        if right and user is not None:
            settings = service.settings
            secret = sessions.begin(session, user, settings.session_idle_s, settings.session_s)
        outcome = "success" if right else "failure"
        audit.record(session, "login", actor, actor, outcome, {"address": address})
    if not right or user is None:
        raise unauthorized("Name or password is wrong.", "Try again.")
    attempts.succeeded(name, address)
    return secret, Principal(
        user.name,
        users.roles_of(user.roles),
        "session",
        address,
        csrf=sessions.csrf_of(secret),
        mask=service.settings.mask_patients,
    )


def _limiter(state: Any) -> anyio.CapacityLimiter:
    """Of the app; made in the event loop that uses it."""
    limiter = getattr(state, "hashing", None) or anyio.CapacityLimiter(AT_ONCE)
    state.hashing = limiter
    return limiter


def _shown(who: Principal | None, login: bool) -> Session:
    if who is None:
        return Session(user=None, roles=[], csrf="", login=login, mask=False)
    return Session(user=who.name, roles=_sorted(who), csrf=who.csrf, login=login, mask=who.mask)


def _sorted(who: Principal) -> list[Role]:
    return [role for role in Role if role in who.roles]
