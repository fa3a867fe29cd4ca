"""`triage serve`: the whole service in one process tree."""

from __future__ import annotations

import signal
import socket
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from triage.cli.common import Exit, load_settings, plain

if TYPE_CHECKING:
    from triage.service.service import Service
    from triage.settings import Settings


def serve(
    host: Annotated[
        str | None, typer.Option("--host", help="Address to bind to [TRIAGE_HTTP_HOST].")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port [TRIAGE_HTTP_PORT].")
    ] = None,
) -> None:
    """Take images by DICOM and HTTP, analyse them, show the list; until SIGTERM or Ctrl-C."""
    settings = load_settings()
    changes = {"http_host": host, "http_port": port}
    run(settings.model_copy(update={k: v for k, v in changes.items() if v is not None}))


def run(settings: Settings, **options: str) -> None:
    """Start the service and serve until told to stop; `options`: for `Service`."""
    from triage.service.access.bind import refusal

    if why := refusal(settings):
        _cannot_start(why)
    check_certificate(settings)
    listener = _listener(settings)

    from triage.service.logs import configure
    from triage.service.server import run as serve_http
    from triage.service.service import CannotStartError, Service

    configure(settings)
    try:
        service = Service(settings, **options)
        service.start()
    except CannotStartError as error:
        listener.close()
        _cannot_start(str(error))
    try:
        _announce(service, listener)
        # without a handler of ours uvicorn would end this process by the signal, not with code 0
        signal.signal(signal.SIGTERM, lambda *_: None)
        serve_http(service, listener)
    finally:
        service.stop()
        print("Stopped.", file=sys.stderr, flush=True)


def check_certificate(settings: Settings) -> None:
    """A certificate that cannot be used is found before anything is started."""
    if settings.tls_cert is None:
        return
    from triage.service.access.bind import tls_context

    try:
        tls_context(settings)
    except OSError as error:
        _cannot_start(
            f"TRIAGE_TLS_CERT and TRIAGE_TLS_KEY cannot be used: {error.strerror or error}."
        )


def _listener(settings: Settings) -> socket.socket:
    """Bind first: a taken port is found before anything is started."""
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.http_host, settings.http_port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        where = f"{settings.http_host}:{settings.http_port}"
        _cannot_start(
            f"HTTP cannot listen on {where}: {error.strerror}. Set TRIAGE_HTTP_PORT or --port."
        )
    return listener


def _announce(service: Service, listener: socket.socket) -> None:
    settings = service.settings
    host, port = listener.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = {
        "list and API": f"{'https' if settings.tls_cert else 'http'}://{address}/",
        "DICOM": f"AE {settings.ae_title} on {settings.dicom_host}:{service.intake.receiver.port}",
        "model": settings.model,
        "home": str(service.home),
        "worker": "in this process" if service.workflow else "none here: run triage worker",
    }
    for name, value in lines.items():
        print(f"{name:<14}{plain(value)}", flush=True)


def _cannot_start(text: str) -> NoReturn:
    print(f"triage: cannot start: {plain(text)}", file=sys.stderr)
    raise typer.Exit(Exit.USAGE)
