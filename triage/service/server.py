"""uvicorn around the app: bounds on connections and time, and an end that waits for nobody."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from triage.service.access.bind import tls_context
from triage.service.app import create_app
from triage.service.service import Service

REQUEST_S = 20.0  # for a request line and its headers to arrive
CONNECTIONS = 400
END_S = 5  # for answers under way, once the service was told to stop


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 that ends a connection whose first request does not come (slow loris)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(REQUEST_S, self._check)

    def _check(self) -> None:
        waiting: bool = self.cycle is None  # type: ignore[redundant-expr,unused-ignore]
        if waiting and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """Ends the event streams when it is told to stop: they would not end by themselves."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.service.hub.close()
        super().handle_exit(sig, frame)


def make(service: Service) -> Server:
    """A server of a service that runs already."""
    options: dict[str, Any] = {
        "http": BoundedProtocol,
        "ws": "none",
        "loop": "asyncio",
        "log_config": None,
        "access_log": False,  # addresses hold study identifiers
        "server_header": False,
        "limit_concurrency": CONNECTIONS,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": END_S,
        "proxy_headers": False,
    }
    settings = service.settings
    if settings.tls_cert is not None:
        options |= {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    config = uvicorn.Config(create_app(settings, service), **options)
    if settings.tls_cert is not None:
        config.load()
        config.ssl = tls_context(settings)  # ours: TLS 1.2 or newer
    return Server(config, service)


def run(service: Service, listener: socket.socket) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT; the service runs already."""
    make(service).run(sockets=[listener])
