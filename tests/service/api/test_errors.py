"""One error shape, bounds, and headers on every answer."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import BASE, NO_DICOM, ZIP
from fastapi.testclient import TestClient

from triage.service.app import create_app
from triage.service.records import DatabaseBusyError, DatabaseFullError
from triage.service.service import Service
from triage.settings import Settings

REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "empty": (400, {"content": b"", "headers": ZIP}),
    "no zip": (400, {"content": b"x" * 100, "headers": ZIP}),
    "form without a file": (400, {"files": {"a": (None, b"x")}}),
    "broken form": (
        400,
        {"content": b"--b\r\n???", "headers": {"content-type": "multipart/form-data; boundary=b"}},
    ),
    "form without a boundary": (
        400,
        {"content": b"--b", "headers": {"content-type": "multipart/form-data"}},
    ),
    "too large": (413, {"content": b"PK\x03\x04" + bytes(3_000_000), "headers": ZIP}),
    "too large, in a form": (413, {"files": {"f": ("f.zip", b"PK\x03\x04" + bytes(3_000_000))}}),
}


def shape(answer: Any) -> dict[str, str]:
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message", "fix"}
    error: dict[str, str] = body["error"]
    return error


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_upload_is_refused_and_leaves_nothing(
    client: TestClient, service: Service, case: str
) -> None:
    status, request = REFUSED[case]
    before = client.get("/api/v1/studies").json()["total"]
    answer = client.post("/api/v1/studies", **request)
    assert answer.status_code == status, answer.text
    shape(answer)
    assert client.get("/api/v1/studies").json()["total"] == before
    assert list(service.files.work.iterdir()) == []


def test_a_body_of_unknown_length_is_cut_at_the_limit(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b"PK\x03\x04"
        while sent < 100 << 20:
            sent += 1 << 16
            yield bytes(1 << 16)

    assert client.post("/api/v1/studies", content=endless(), headers=ZIP).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/studies/0123456789abcdef0123456789abcdef", 404),
        ("GET", "/api/v1/studies/..%2f..%2fetc", 404),
        ("GET", "/api/v1/studies/%00", 404),
        ("PUT", "/api/v1/studies", 405),
        ("GET", "/api/v1/studies?limit=x", 422),
        ("GET", "/api/v1/studies?status=well", 422),
    ],
)
def test_every_error_has_the_one_shape(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    shape(answer)


def test_a_value_that_was_sent_is_not_echoed(client: TestClient) -> None:
    answer = client.get("/api/v1/studies?limit=DOE%5EJANE")
    assert "DOE" not in answer.text


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (OSError(errno.ENOSPC, "full"), 507),
        (DatabaseFullError("full"), 507),
        (DatabaseBusyError("locked"), 503),
        (KeyError("DOE^JANE"), 500),
    ],
)
def test_faults_behind_the_routes(
    client: TestClient,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
    status: int,
) -> None:
    def broken() -> Any:
        raise fault

    monkeypatch.setattr(service.records, "reading", broken)
    answer = client.get("/api/v1/studies")
    assert answer.status_code == status
    shape(answer)
    assert "DOE" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/healthz", "/nothing", "/api/v1/studies?limit=x"])
def test_answers_carry_headers_that_keep_browsers_from_guessing(
    client: TestClient, path: str
) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", ""])
def test_another_host_name_is_refused(client: TestClient, host: str) -> None:
    """A page elsewhere may point its own name at the loopback address (DNS rebinding)."""
    answer = client.get("/api/v1/studies", headers={"host": host})
    assert answer.status_code == 400
    shape(answer)


def test_a_page_of_another_site_cannot_order_anything(client: TestClient) -> None:
    answer = client.post("/api/v1/studies/1/cancel", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    shape(answer)


def test_a_large_body_where_none_is_expected_is_refused(client: TestClient) -> None:
    answer = client.post("/api/v1/studies/1/cancel", content=bytes(1 << 20))
    assert answer.status_code == 413


def test_no_upload_is_left_in_the_home(client: TestClient, service: Service) -> None:
    client.post("/api/v1/studies", content=NO_DICOM, headers=ZIP)
    left: list[Path] = list(service.files.work.iterdir())
    assert left == []


def test_a_pacs_that_cannot_be_reached(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, pacs_web="http://127.0.0.1:1/dicom-web")
    app = create_app(settings)
    app.state.service.records.upgrade()
    client = TestClient(app, base_url=BASE)  # nothing else is started
    for answer in (
        client.get("/api/v1/pacs/studies", params={"patient_id": "1"}),
        client.post("/api/v1/pacs/studies/1.2.3"),
    ):
        assert answer.status_code == 502
        assert shape(answer)["code"] == "PACS_FAILED"
