"""`triage serve`: the HTTP service."""

from __future__ import annotations

import ipaddress
import sys
from typing import Annotated

import typer

from triage.cli.common import load_settings, plain


def serve(
    host: Annotated[
        str | None, typer.Option("--host", help="Address to bind to [TRIAGE_HTTP_HOST].")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port [TRIAGE_HTTP_PORT].")
    ] = None,
) -> None:
    """Serve uploads, reports and a worklist page over HTTP."""
    settings = load_settings()
    host = host or settings.http_host
    port = settings.http_port if port is None else port
    if not is_loopback(host):
        print(
            f"Warning: {plain(host)} is reachable by other machines, and the service has no login.",
            file=sys.stderr,
        )
    import uvicorn

    from triage.service.app import create_app

    uvicorn.run(create_app(settings), host=host, port=port, server_header=False)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
