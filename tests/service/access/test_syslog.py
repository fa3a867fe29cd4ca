"""The audit log to a real TLS listener, as RFC 5424 in RFC 5425 frames."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import until

from triage.service.access import audit, syslog
from triage.service.access.shipping import SENT, Shipping
from triage.service.records import Database, studies
from triage.settings import Settings

# RFC 5424 section 6: header, structured data, message.
MESSAGE = re.compile(
    rb"<(\d{1,3})>1 (\S+Z) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) "
    rb'\[origin software="[^"]+" swVersion="[^"]+"\]\[meta sequenceId="(\d+)"\] (\{.*\})'
)


class LogServer:
    """Takes one connection after the other; `frames`: what came, taken apart."""

    def __init__(self, certificates: Path, client_ca: str = "", port: int = 0) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        if client_ca:
            self.context.load_verify_locations(certificates / client_ca)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self.listener.getsockname()[1]
        self.frames: list[bytes] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(plain, server_side=True) as channel:
                    data = b""
                    while block := channel.recv(65536):
                        data += block
                self.frames += taken_apart(data)
            except OSError:
                plain.close()

    def close(self) -> None:
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        self.thread.join(timeout=10)


def taken_apart(data: bytes) -> list[bytes]:
    """Octet counting: MSG-LEN SP SYSLOG-MSG."""
    found = []
    while data:
        length, _, rest = data.partition(b" ")
        assert length.isdigit() and not length.startswith(b"0") and len(rest) >= int(length)
        found.append(rest[: int(length)])
        data = rest[int(length) :]
    return found


@pytest.fixture
def log_server(certificates: Path) -> Iterator[Callable[..., LogServer]]:
    started: list[LogServer] = []

    def start(**options: object) -> LogServer:
        started.append(LogServer(certificates, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    database = Database.at_home(home)
    database.upgrade()
    yield database
    database.close()


def fill(database: Database, number: int) -> None:
    with database.session() as session:
        for k in range(number):
            outcome = "failure" if k % 2 else "success"
            audit.record(session, "login", f"user{k}", "ünknown", outcome, {"address": "::1"})


def shipping(home: Path, database: Database, server: LogServer, ca: Path | None) -> Shipping:
    settings = Settings(home=home, audit_syslog=f"localhost:{server.port}", audit_syslog_ca=ca)
    return Shipping(settings, database)


def test_rows_arrive_once_in_order_as_audit_events(
    home: Path, database: Database, log_server: Callable[..., LogServer], certificates: Path
) -> None:
    server = log_server()
    sender = shipping(home, database, server, certificates / "server.pem")
    fill(database, 5)
    assert (sender.step(), sender.step()) == (5, 0)
    fill(database, 1)
    assert sender.step() == 1
    until(lambda: len(server.frames) == 6)
    found = [MESSAGE.fullmatch(frame) for frame in server.frames]
    assert all(found)
    numbers = [(int(m[1]), m[6], int(m[7])) for m in found if m]
    assert numbers[:2] == [(13 * 8 + 5, b"login", 1), (13 * 8 + 4, b"login", 2)]
    assert [n for _, _, n in numbers] == [1, 2, 3, 4, 5, 6]
    event = json.loads(found[0][8])  # type: ignore[index]
    assert event["resourceType"] == "AuditEvent" and event["agent"][0]["altId"] == "user0"


def test_nothing_is_lost_while_the_server_is_away(
    home: Path, database: Database, log_server: Callable[..., LogServer], certificates: Path
) -> None:
    server = log_server()
    port = server.port
    sender = shipping(home, database, server, certificates / "server.pem")
    fill(database, 2)
    assert sender.step() == 2
    server.close()
    fill(database, 3)
    with pytest.raises(OSError):
        sender.step()
    back = log_server(port=port)
    sender.start()  # the thread of the service
    until(lambda: len(back.frames) == 3)
    sender.stop()
    with database.reading() as session:
        assert studies.counters(session)[SENT] == 5


def test_a_server_that_is_not_ours_gets_nothing(
    home: Path, database: Database, log_server: Callable[..., LogServer], certificates: Path
) -> None:
    server = log_server()
    fill(database, 1)
    for ca in (None, certificates / "stranger.pem"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shipping(home, database, server, ca).step()
    with pytest.raises(ssl.SSLCertVerificationError):  # the right CA and another name
        syslog.send([b"x"], ("127.1", server.port), syslog.tls(certificates / "server.pem"))
    assert server.frames == []


def test_our_certificate_is_shown_where_the_server_asks(
    database: Database, log_server: Callable[..., LogServer], certificates: Path, tmp_path: Path
) -> None:
    server = log_server(client_ca="client.pem")
    both = tmp_path / "both.pem"
    both.write_bytes(
        (certificates / "client.pem").read_bytes() + (certificates / "client.key").read_bytes()
    )
    to = ("localhost", server.port)
    with pytest.raises(OSError):
        syslog.send([b"x"], to, syslog.tls(certificates / "server.pem"))
    syslog.send([b"<109>1 - - - - - -"], to, syslog.tls(certificates / "server.pem", both))
    until(lambda: server.frames == [b"<109>1 - - - - - -"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("logs", ("logs", 6514)),
        ("logs:1", ("logs", 1)),
        ("[::1]:7", ("::1", 7)),
        ("[::1]", ("::1", 6514)),
        ("", None),
        ("logs:x", None),
        ("logs:0", None),
    ],
)
def test_addresses(text: str, expected: tuple[str, int] | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="Expected"):
            syslog.address(text)
    else:
        assert syslog.address(text) == expected
