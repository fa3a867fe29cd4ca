"""A real server on loopback with TLS, a login, users and tokens; analyses are quick ones."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from quick_pipeline import LOAD

from triage.service import server
from triage.service.access import tokens, users
from triage.service.access.principal import Role
from triage.service.service import Service
from triage.settings import Settings

PASSWORD = "a good long Passw0rd"  # noqa: S105 - of the tests alone
ROLES = {"vera": {Role.VIEWER}, "sam": {Role.SENDER}, "ada": {Role.ADMIN}}


@dataclass
class House:
    """A running service: `token[role]`, and clients that trust its certificate."""

    service: Service
    url: str
    trust: ssl.SSLContext | bool
    token: dict[str, str] = field(default_factory=dict)
    open: list[httpx.Client] = field(default_factory=list)

    def client(self, role: str | None = None) -> httpx.Client:
        """With the token of a role, or none."""
        headers = {"authorization": f"Bearer {self.token[role]}"} if role else {}
        found = httpx.Client(base_url=self.url, verify=self.trust, headers=headers, timeout=30)
        self.open.append(found)
        return found

    def browser(self, name: str, password: str = PASSWORD) -> httpx.Client:
        """Logged in; sends the CSRF header with everything."""
        found = self.client()
        answer = found.post("/api/v1/session", json={"name": name, "password": password})
        assert answer.status_code == 200, answer.text
        found.headers["X-CSRF-Token"] = answer.json()["csrf"]
        return found

    def audit(self, action: str = "") -> list[dict[str, Any]]:
        from triage.service.access import audit

        with self.service.records.reading() as session:
            rows = [dict(row) for row in audit.rows(session)]
        return [row for row in rows if action in ("", row["action"])]


def make_certificate(folder: Path, name: str, subject: str = "localhost") -> None:
    """`<name>.pem` and `<name>.key`, signed by itself."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN={subject} -addext subjectAltName=DNS:localhost,IP:127.0.0.1 "
        f"-keyout {name}.key -out {name}.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


@contextmanager
def house(home: Path, certificates: Path | None, **changes: Any) -> Iterator[House]:
    """Start it; `certificates`: of the server, None: without TLS."""
    values: dict[str, Any] = {"home": home, "dicom_port": 0, "series_quiet_s": 0.3, **changes}
    trust: ssl.SSLContext | bool = False
    if certificates is not None:
        values |= {"tls_cert": certificates / "server.pem", "tls_key": certificates / "server.key"}
        trust = ssl.create_default_context(cafile=str(certificates / "server.pem"))
    with ExitStack() as stack:
        service = Service(Settings(**values), load=LOAD)
        token = add_people(service)
        service.start()
        stack.callback(service.stop)
        listener = socket.create_server(("127.0.0.1", 0))
        serving = server.make(service)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
        thread.start()
        stack.callback(thread.join)
        stack.callback(setattr, serving, "should_exit", True)
        stack.callback(service.hub.close)
        until(lambda: serving.started)
        scheme = "https" if certificates else "http"
        found = House(service, f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", trust, token)
        yield found
        for client in found.open:
            client.close()


def add_people(service: Service) -> dict[str, str]:
    """The users of `ROLES` and a token for each role; role -> token."""
    service.records.upgrade()
    token = {}
    with service.records.session() as session:
        for name, roles in ROLES.items():
            users.add(session, name, PASSWORD, roles, "console")
            (role,) = roles
            token[role.value], _ = tokens.new(session, f"for-{role}", roles, "console")
    return token


def until(condition: Callable[[], Any], seconds: float = 20, every: float = 0.02) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(every)
