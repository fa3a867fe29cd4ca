"""Where the service may listen; TLS, and the headers of every answer."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from house import PASSWORD, House, make_certificate, until

from triage.service.access.bind import always_login, is_loopback, refusal
from triage.service.app import create_app, host_names
from triage.service.service import CannotStartError, Service
from triage.settings import Settings

OPEN = "0.0.0.0"  # noqa: S104 - what needs rules
CERTIFICATE = {"tls_cert": "c.pem", "tls_key": "k.pem"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, None),
        ({"http_host": "localhost"}, None),
        ({"http_host": "::1"}, None),
        ({"http_host": OPEN}, "TRIAGE_TLS_CERT"),
        ({"http_host": "::"}, "TRIAGE_TLS_CERT"),
        ({"http_host": "triage.example"}, "TRIAGE_TLS_CERT"),
        ({"http_host": OPEN, **CERTIFICATE}, None),
        ({"http_host": OPEN, "behind_proxy": True}, None),
        ({"tls_key": "k.pem"}, "TRIAGE_TLS_CERT"),
        ({"dicom_host": OPEN}, "TRIAGE_SENDERS"),
        ({"dicom_host": OPEN, "senders": " , "}, "TRIAGE_SENDERS"),
        ({"dicom_host": OPEN, "senders": "CT1"}, None),
        ({"dicom_host": OPEN, "dicom_tls_client_ca": "a", "dicom_tls_cert": "b"}, None),
        ({"dicom_host": OPEN, "dicom_tls_client_ca": "a"}, "no TLS"),
        ({"dicom_tls_client_ca": "a", "senders": "CT1"}, "no TLS"),
    ],
)
def test_what_may_be_bound(settings: dict[str, Any], says: str | None) -> None:
    found = refusal(Settings(**settings))
    assert found is None if says is None else says in (found or "")


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, False),
        ({"login_required": True}, True),
        ({"behind_proxy": True}, True),
        ({"http_host": OPEN, **CERTIFICATE}, True),
    ],
)
def test_when_a_login_is_always_needed(settings: dict[str, Any], needed: bool) -> None:
    found = Settings(**settings)
    assert always_login(found) is needed
    assert (host_names(found) == frozenset()) is needed
    named = found.model_copy(update={"http_names": "triage.example, x"})
    assert {"triage.example", "x", "127.0.0.1"} <= host_names(named)


def test_no_start_without_somebody_who_could_log_in(home: Path) -> None:
    service = Service(Settings(home=home, dicom_port=0, behind_proxy=True, embedded_worker=False))
    with pytest.raises(CannotStartError, match="triage user add"):
        service.start()


@pytest.mark.parametrize(
    ("host", "ours"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("10.0.0.1", False), ("x", False)],
)
def test_loopback(host: str, ours: bool) -> None:
    assert is_loopback(host) is ours


# ---- who is local


def test_without_users_this_machine_asks_nobody_but_what_was_forwarded(home: Path) -> None:
    from fastapi.testclient import TestClient

    service = Service(Settings(home=home, dicom_port=0, embedded_worker=False))
    service.records.upgrade()
    client = TestClient(create_app(service.settings, service), base_url="http://127.0.0.1")
    who = client.get("/api/v1/session").json()
    assert (who["user"], who["login"]) == ("local", False)
    assert set(who["roles"]) == {"viewer", "sender", "admin"}
    assert client.get("/api/v1/studies").status_code == 200
    for header in ("x-forwarded-for", "forwarded", "via", "x-real-ip"):
        assert client.get("/api/v1/studies", headers={header: "10.0.0.9"}).status_code == 401
    service.records.close()


def test_behind_a_proxy_its_word_counts_for_the_address(
    open_house: Callable[..., House],
) -> None:
    place = open_house(behind_proxy=True, embedded_worker=False)
    client = place.client()
    client.headers["x-forwarded-for"] = "1.1.1.1, 10.0.0.9"
    client.post("/api/v1/session", json={"name": "vera", "password": "wrong"})
    assert place.audit("login")[-1]["details"]["address"] == "10.0.0.9"


# ---- TLS and headers


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TLS 1.1, which must fail
def test_nothing_is_said_without_tls(place: House) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(place.url.replace("https", "http") + "/healthz")
    host, port = "127.0.0.1", int(place.url.rpartition(":")[2])
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((host, port), 10) as plain, pytest.raises(OSError):
        old.wrap_socket(plain, server_hostname=host)


def test_a_certificate_that_cannot_be_used_is_said_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from triage.cli.main import call
    from triage.settings import settings

    make_certificate(tmp_path, "a")
    make_certificate(tmp_path, "b")
    for certificate, key in (("a.pem", "b.key"), ("none.pem", "b.key")):
        monkeypatch.setenv("TRIAGE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TRIAGE_TLS_CERT", str(tmp_path / certificate))
        monkeypatch.setenv("TRIAGE_TLS_KEY", str(tmp_path / key))
        settings.cache_clear()
        try:
            assert call(["serve"]) == 2
        finally:
            settings.cache_clear()
        said = capsys.readouterr().err
        assert said.startswith("triage: cannot start: TRIAGE_TLS_CERT") and said.count("\n") == 1


ASKED = ["/", "/login", "/healthz", "/readyz", "/nothing", "/api/v1/studies", "/metrics"]


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("role", [None, "admin"])
def test_every_answer_has_the_headers(place: House, path: str, role: str | None) -> None:
    headers = place.client(role).get(path).headers
    policy = directives(headers["content-security-policy"])
    assert policy["default-src"] == ["'none'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert policy["base-uri"] == ["'none'"]
    assert set(policy["form-action"]) <= {"'self'", "'none'"}
    for name in ("script-src", "style-src", "default-src"):
        sources = policy.get(name, [])
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "data:", "https:"} & set(sources)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["strict-transport-security"].startswith("max-age=")
    assert "server" not in headers


def directives(policy: str) -> dict[str, list[str]]:
    parts = [part.split() for part in policy.split(";") if part.strip()]
    assert len({part[0] for part in parts}) == len(parts), "a directive stands twice"
    return {part[0]: part[1:] for part in parts}


@pytest.mark.parametrize("path", ["/", "/login", "/admin"])
def test_pages_hold_no_script_and_no_style_of_their_own(place: House, path: str) -> None:
    """What the policy would refuse must not be there: the page would be broken."""
    answer = place.client("admin").get(path)
    assert answer.status_code == 200
    for script in re.findall(r"<script([^>]*)>(.*?)</script>", answer.text, re.S):
        inert = "application/json" in script[0]
        assert inert or ("src=" in script[0] and not script[1].strip()), script
    assert not re.search(r"<style|\sstyle\s*=|\son\w+\s*=\s*[\"']|javascript:", answer.text)


def test_readiness_says_ok_over_tls(place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The health check of containers and units."""
    from triage.service import probe

    found = place.service.settings.model_copy(
        update={"http_port": int(place.url.rpartition(":")[2])}
    )
    until(lambda: place.client().get("/readyz").status_code == 200)
    assert probe.serve(found)
    assert not probe.serve(found.model_copy(update={"tls_cert": None}))
    until(lambda: probe.worker(found))
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert not probe.worker(found)


def test_every_cookie_is_httponly_samesite_and_secure(place: House) -> None:
    from http.cookies import SimpleCookie

    login = {"name": "vera", "password": PASSWORD}
    client = place.client()
    answers = [
        client.post("/api/v1/session", json=login),
        client.get("/preferences?theme=light&mask=1&lang=en"),
    ]
    found = [c for a in answers for c in a.headers.get_list("set-cookie")]
    assert len(found) == 4
    for text in found:
        ((name, cookie),) = SimpleCookie(text).items()
        assert cookie["httponly"] and cookie["secure"], name
        assert cookie["samesite"].lower() == "strict", name
