"""Decides for every request: who asks, and whether the table of rights lets it through.

`authorise` is a dependency of the whole app, so it runs before every route's own parameters are
read, in a thread. Uploads are refused before their body is read.
"""

from __future__ import annotations

import hmac
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import Request
from sqlalchemy.orm import Session

from triage.service.access import rights, sessions, tokens, users
from triage.service.access.bind import always_login
from triage.service.access.looks import Looks
from triage.service.access.principal import Principal, local
from triage.service.errors import ApiError, forbidden, unauthorized
from triage.service.records import Database, DatabaseBusyError, DatabaseFullError
from triage.service.records.models import now
from triage.settings import Settings

if TYPE_CHECKING:
    from triage.service.service import Service

log = logging.getLogger(__name__)
YES = ("true", "1", "on", "yes")
SAFE = ("GET", "HEAD", "OPTIONS")
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
QUIET = frozenset({"get_events"})  # a page left open keeps no session alive


class Guard:
    """Of one running service. Any thread may ask."""

    def __init__(self, settings: Settings, records: Database) -> None:
        self.settings = settings
        self.records = records
        self.looks = Looks(records)

    def check(self, request: Request) -> Principal | None:
        """Who asks, where the route may be used; None on an open route. Raises ApiError."""
        name = str(getattr(request.scope.get("route"), "name", ""))
        if name in rights.OPEN:
            return None
        roles = rights.allowed(name)
        if roles is None:
            log.error("no right was ever written down for the route %s", name)
            raise forbidden("Nobody may use this.", "Report it: the table of rights lacks a row.")
        who = self.identify(request)
        if who is None:
            raise _login(request, name) or unauthorized()
        if who.roles.isdisjoint(roles):
            self.looks.note(who, "access.refused", name, outcome="failure")
            needed = " or ".join(sorted(roles))
            raise _login(request, name) or forbidden(
                f"This needs the role {needed}.", "Ask an administrator: triage user role."
            )
        self._look(who, name, request.path_params.get("study"))
        return who

    def _look(self, who: Principal, route: str, study: str | None) -> None:
        if route not in rights.LOOKS:
            return
        action, what = rights.LOOKS[route]
        if study is None:
            self.looks.note(who, action, "", what)
        else:
            self.looks.study(who, action, study, what)

    def identify(self, request: Request) -> Principal | None:
        """Who asks; None where a login is needed and nobody is known. Raises ApiError."""
        with self.records.reading() as session:
            found = self._by_token(session, request) or self._by_cookie(session, request)
            if found is None and not self._login_needed(session, request):
                found = local(self.address(request), self.settings.mask_patients)
        if found is not None and request.query_params.get("mask", "").lower() in YES:
            found = replace(found, mask=True)
        return found

    def login_needed(self) -> bool:
        """Whether this service asks for a login."""
        with self.records.reading() as session:
            return always_login(self.settings) or users.any_at_all(session)

    def address(self, request: Request) -> str:
        """The peer's; behind a proxy what the proxy says it was (its own word stands last)."""
        if self.settings.behind_proxy:
            said = ",".join(request.headers.getlist("x-forwarded-for"))
            if last := said.rpartition(",")[2].strip():
                return last[:64]
        return request.client.host if request.client else ""

    def _login_needed(self, session: Session, request: Request) -> bool:
        if always_login(self.settings) or users.any_at_all(session):
            return True
        # not from this machine after all: somebody put a proxy before us and did not say so
        return any(name in request.headers for name in FORWARDED)

    def _by_token(self, session: Session, request: Request) -> Principal | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        row = tokens.find(session, token.strip(), now())
        if row is None:
            raise unauthorized("This token is not valid.", "triage token new makes another.")
        return Principal(
            f"token:{row.name}",
            users.roles_of(row.roles),
            "token",
            self.address(request),
            row.id,
            mask=self.settings.mask_patients,
        )

    def _by_cookie(self, session: Session, request: Request) -> Principal | None:
        secret = request.cookies.get(sessions.COOKIE)
        if not secret:
            return None
        at = now()
        found = sessions.find(session, secret, at, self.settings.session_idle_s)
        if found is None:
            return None
        row, user = found
        csrf = sessions.csrf_of(secret)
        if request.method not in SAFE:
            _check_csrf(request, csrf)
        self._seen(request, row.id, row.seen_at, at)
        return Principal(
            user.name,
            users.roles_of(user.roles),
            "session",
            self.address(request),
            row.id,
            csrf,
            self.settings.mask_patients or row.mask,
        )

    def _seen(self, request: Request, key: str, before: datetime, at: datetime) -> None:
        name = getattr(request.scope.get("route"), "name", "")
        often = min(sessions.SEEN_EVERY, timedelta(seconds=self.settings.session_idle_s / 4))
        if name in QUIET or at - before < often:
            return
        with suppress(DatabaseBusyError, DatabaseFullError), self.records.session() as session:
            sessions.seen(session, key, at)


def authorise(request: Request) -> None:
    """Dependency of the whole app: sets `request.state.principal` or raises ApiError."""
    service: Service = request.app.state.service
    who = service.guard.check(request)
    if who is not None:
        request.state.principal = who
        request.state.user = "" if who.how == "local" else who.name


def _check_csrf(request: Request, csrf: str) -> None:
    """Only our own pages know the session's token (OWASP: HMAC-based token pattern)."""
    sent = request.headers.get(sessions.CSRF_HEADER, "")
    if not hmac.compare_digest(sent.encode("utf-8", "replace"), csrf.encode()):
        raise forbidden(
            f"The header {sessions.CSRF_HEADER} is missing or not that of this session.",
            "Send what GET /api/v1/session says under csrf.",
        )


def _login(request: Request, name: str) -> ApiError | None:
    """A page leads to the login; its query may name a patient, so it stays behind."""
    if name not in rights.PAGES or request.method not in SAFE:
        return None
    where = "/login?next=" + quote(request.url.path, safe="/")
    return ApiError(303, "LOGIN", "Log in first.", "Open /login.", {"Location": where})
