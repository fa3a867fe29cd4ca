"""What every request passes: host check, body cap, security headers, and the last catch of errors.

Pure ASGI: streams (events, volumes) go through unbuffered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triage.service.errors import (
    ApiError,
    bad_request,
    body,
    fault_answer,
    forbidden,
    too_large,
)

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
}
# RFC 6797: from now on only with TLS. No includeSubDomains: other names are not ours to decide on.
TLS_HEADERS = {"Strict-Transport-Security": "max-age=31536000"}
# Bodies of every other route are small JSON; uploads have caps of their own (TRIAGE_MAX_BYTES).
BODY_LIMIT = 64 << 10


class Boundary:
    """ASGI middleware around the whole app.

    `hosts`: names in the Host header that are ours; empty: all. Without this check a web page
    elsewhere could point its own name at the loopback address and read patients' images (DNS
    rebinding); where every request needs a cookie or a token, it has neither.
    `large(method, path)`: whether the route takes an upload and caps it by itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str],
        large: Callable[[str, str], bool],
        encrypted: bool = False,
    ) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.large = large
        self.headers = SECURITY_HEADERS | (TLS_HEADERS if encrypted else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            capped = receive if self._large(scope) else _capped(receive)
            await self.app(scope, capped, guarded)
        except ApiError as error:
            if started:
                raise
            answer = body(error.status, error.code, error.message, error.fix, error.headers)
            await answer(scope, receive, guarded)
        except Exception as error:
            if started:  # the client sees a body that breaks off
                raise
            await fault_answer(error)(scope, receive, guarded)

    def _large(self, scope: Scope) -> bool:
        return self.large(scope["method"], scope["path"])

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = _host_name(headers.get("host", ""))
        if (self.hosts and host not in self.hosts) or not host:
            raise bad_request(
                "The Host header names another machine.",
                "Use the address that serve printed, or add the name to TRIAGE_HTTP_NAMES.",
            )
        elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if elsewhere and scope["method"] not in ("GET", "HEAD"):
            raise forbidden("A page of another site sent this.", "Use the service's own pages.")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > BODY_LIMIT and not self._large(scope):
            raise too_large(BODY_LIMIT)


def _host_name(host: str) -> str:
    """The name in a Host header (RFC 9110, 7.2) without its port; [::1] keeps its brackets."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _capped(receive: Receive) -> Receive:
    received = 0

    async def capped() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_LIMIT:
            raise too_large(BODY_LIMIT)
        return message

    return capped
