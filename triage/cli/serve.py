"""`triage serve`: the whole service in one process tree."""

from __future__ import annotations

import ipaddress
import logging
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
    refuse_strangers(settings)
    logging.basicConfig(
        level=logging.DEBUG if settings.debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    for noisy in ("pynetdicom", "alembic", "dbos", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    listener = _listener(settings)

    from triage.service.server import run as serve_http
    from triage.service.service import CannotStartError, Service

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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_strangers(settings: Settings) -> None:
    """Patients' images leave this machine only to those who have a right to them."""
    if not is_loopback(settings.http_host):
        _cannot_start(
            f"{settings.http_host} is reachable by other machines, and HTTP has no login and no "
            "encryption yet. Bind to 127.0.0.1 and put a proxy with both before it."
        )
    if not is_loopback(settings.dicom_host) and not settings.senders:
        _cannot_start(
            f"{settings.dicom_host} is reachable by other machines: name the senders that may "
            "connect in TRIAGE_SENDERS (AE, or AE@address), or bind TRIAGE_DICOM_HOST to 127.0.0.1."
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
        "list and API": f"http://{address}/",
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
