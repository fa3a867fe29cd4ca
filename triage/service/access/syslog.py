"""Syslog messages (RFC 5424) over TLS (RFC 5425), with the standard library alone."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from triage import __version__
from triage.service.access.fhir import audit_event

PORT = 6514  # RFC 5425, 4.1
LOG_AUDIT = 13  # facility, RFC 5424 Table 1
SEVERITY = {"success": 5, "failure": 4}  # notice, warning: RFC 5424 Table 2
TIMEOUT_S = 20.0


def message(row: Mapping[str, Any], host: str) -> bytes:
    """One row of the audit log as a syslog message: its FHIR AuditEvent in ASCII, so no BOM.

    `origin` and `meta` are the structured data that RFC 5424 section 7 registers.
    """
    priority = LOG_AUDIT * 8 + SEVERITY[row["outcome"]]
    at = row["at"].isoformat(timespec="microseconds").replace("+00:00", "Z")
    origin = f'[origin software="trauma-ct-triage" swVersion="{_value(__version__)}"]'
    meta = f'[meta sequenceId="{(row["id"] - 1) % 2147483647 + 1}"]'
    header = f"<{priority}>1 {at} {_field(host, 255)} triage {os.getpid()} {row['action'][:32]}"
    event = json.dumps(audit_event(row, host), ensure_ascii=True, separators=(",", ":"))
    return f"{header} {origin}{meta} {event}".encode("ascii")


def framed(messages: Iterable[bytes]) -> bytes:
    """Octet counting (RFC 5425, 4.3)."""
    return b"".join(b"%d %b" % (len(one), one) for one in messages)


def address(text: str) -> tuple[str, int]:
    """`host`, `host:port` or `[::1]:port`. ValueError for anything else."""
    host, port = text.strip(), str(PORT)
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"Expected HOST or HOST:PORT of a log server, got {text!r}")
    return host, int(port)


def tls(ca: Path | None = None, certificate: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2, server and name verified; `certificate`: ours, with its key, where the log server
    asks for one (RFC 5425, 4.2). Raises OSError.

    Not 1.3: there our part of the handshake ends before the server has looked at our certificate,
    so rows would be sent, thrown away, and count as taken. RFC 9662 has every server speak 1.2.
    """
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def send(messages: Iterable[bytes], to: tuple[str, int], context: ssl.SSLContext) -> None:
    """Send over one connection and close it in order. Raises OSError where that is not certain.

    Syslog has no receipt. We end with close_notify and wait for the peer to end: TLS hands it our
    alert after all that came before, so a peer that closes has read everything (RFC 5425, 4.4).
    """
    with (
        socket.create_connection(to, timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=to[0]) as channel,
    ):
        channel.sendall(framed(messages))
        with suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):  # closed without the alert
            channel.unwrap()


def host_name() -> str:
    return _field(socket.gethostname(), 255)


def _field(text: str, longest: int) -> str:
    """PRINTUSASCII without blanks; nothing is `-` (RFC 5424, 6)."""
    return "".join(c for c in text if 33 <= ord(c) <= 126)[:longest] or "-"


def _value(text: str) -> str:
    """A value of structured data (RFC 5424, 6.3.3)."""
    return "".join("\\" + c if c in '"\\]' else c for c in text)
