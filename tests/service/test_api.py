"""The API with the real app, worker process and pipeline."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from service_client import NO_DICOM, finished, zip_of

from triage.results.report import report_schema
from triage.service.app import create_app
from triage.settings import Settings
from triage.types import DISCLAIMER, TARGETS

ROOT = Path(__file__).resolve().parents[2]
ZIP = {"content-type": "application/zip"}
FORMS: dict[str, dict[str, Any]] = {
    "raw": {"content": NO_DICOM, "headers": ZIP},
    "form": {"files": {"file": ("study.zip", NO_DICOM)}, "data": {"note": "x"}},
}


def studies_on_disk(home: Path) -> list[Path]:
    return [p for p in (home / "studies").iterdir() if p.is_dir()]


@pytest.mark.parametrize("form", FORMS)
def test_what_cannot_be_analysed_is_refused_with_a_reason(
    client: TestClient, home: Path, form: str
) -> None:
    answer = client.post("/api/v1/studies", **FORMS[form])
    assert answer.status_code == 202, answer.text
    study = answer.json()["id"]
    assert answer.headers["location"] == f"/api/v1/studies/{study}"
    done = finished(client, study)
    assert done["status"] == "not_analysed"
    assert (done["priority"], done["verdicts"]) == ("urgent", {})
    assert done["reason"] == done["report"]["reason"]
    Draft202012Validator(report_schema()).validate(done["report"])
    (folder,) = studies_on_disk(home)
    assert not (folder / "upload.zip").exists()
    page = client.get("/")
    assert DISCLAIMER in page.text
    assert done["reason"]["code"] in page.text


def test_the_list_is_newest_first(client: TestClient) -> None:
    ids = [
        client.post("/api/v1/studies", content=NO_DICOM, headers=ZIP).json()["id"] for _ in range(3)
    ]
    listed = client.get("/api/v1/studies").json()
    assert [s["id"] for s in listed["studies"]] == ids[::-1]
    assert listed["disclaimer"] == DISCLAIMER


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
    "too large": (413, {"content": b"PK\x03\x04" + bytes(3000), "headers": ZIP}),
    "too large, in a form": (413, {"files": {"f": ("f.zip", b"PK\x03\x04" + bytes(3000))}}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_upload_is_refused_and_leaves_nothing(home: Path, case: str) -> None:
    status, request = REFUSED[case]
    with TestClient(create_app(Settings(home=home, max_bytes=2000))) as client:
        answer = client.post("/api/v1/studies", **request)
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"code", "message", "fix"}
        assert client.get("/api/v1/studies").json()["studies"] == []
        assert studies_on_disk(home) == []


def test_a_body_of_unknown_length_is_cut_at_the_limit(home: Path) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b"PK\x03\x04"
        while sent < 100 << 20:
            sent += 1 << 16
            yield bytes(1 << 16)

    with TestClient(create_app(Settings(home=home, max_bytes=100_000))) as client:
        assert client.post("/api/v1/studies", content=endless(), headers=ZIP).status_code == 413
        assert studies_on_disk(home) == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/studies/0123456789abcdef0123456789abcdef",
        "/api/v1/studies/..%2f..%2fetc",
        "/api/v1/studies/{id}/overlays/none.png",
        "/api/v1/studies/{id}/overlays/..%2f..%2fstate.json",
        "/api/v1/studies/{id}/overlays/%2e%2e%2freport.json",
        "/nothing",
    ],
)
def test_unknown_things_are_not_found_in_the_one_error_shape(client: TestClient, path: str) -> None:
    study = client.post("/api/v1/studies", content=NO_DICOM, headers=ZIP).json()["id"]
    answer = client.get(path.format(id=study))
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"code", "message", "fix"}


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    ready = client.get("/readyz")
    checks = ready.json()["checks"]
    assert set(checks) == {"bundle", "worker", "storage"}
    assert checks["worker"] == checks["storage"] == "ok"
    assert ready.status_code == (200 if checks["bundle"] == "ok" else 503)


def test_a_missing_bundle_is_not_ready(home: Path) -> None:
    with TestClient(create_app(Settings(home=home, model="no-such-bundle"))) as client:
        assert client.get("/readyz").status_code == 503


def test_answers_carry_headers_that_keep_browsers_from_guessing(client: TestClient) -> None:
    for path in ("/", "/healthz", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_a_killed_worker_process_is_tried_again(client: TestClient) -> None:
    worker = client.app.state.worker  # type: ignore[attr-defined]
    first = client.post("/api/v1/studies", content=NO_DICOM, headers=ZIP).json()["id"]
    while worker._child is None or worker._child.pid is None:
        time.sleep(0.01)
    os.kill(worker._child.pid, signal.SIGKILL)
    second = client.post("/api/v1/studies", content=NO_DICOM, headers=ZIP).json()["id"]
    codes = [finished(client, study)["reason"]["code"] for study in (first, second)]
    assert codes[0] == codes[1] != "WORKER_FAILED"


def test_a_study_that_takes_too_long_is_refused(home: Path) -> None:
    with TestClient(create_app(Settings(home=home, analysis_timeout_s=0.01))) as client:
        study = client.post("/api/v1/studies", content=NO_DICOM, headers=ZIP).json()["id"]
        assert finished(client, study)["reason"]["code"] == "TIMED_OUT"


def test_a_real_ct_comes_back_with_verdicts_and_overlays(client: TestClient, shared: Path) -> None:
    if not (ROOT / "models" / "reference" / "bundle.json").is_file():
        pytest.skip("there is no bundle in models/reference")
    series = shared / "ct" / "portal_slab_dicom"
    data = zip_of({p.name: p.read_bytes() for p in series.rglob("*") if p.is_file()})
    answer = client.post("/api/v1/studies", files={"file": ("study.zip", data)})
    done = finished(client, answer.json()["id"])
    assert done["status"] == "analysed", done["reason"]
    Draft202012Validator(report_schema()).validate(done["report"])
    assert set(done["verdicts"]) == {target.value for target in TARGETS}
    overlays = [name for t in done["report"]["targets"].values() for name in t["overlays"]]
    assert overlays
    for name in overlays:
        picture = client.get(f"/api/v1/studies/{done['id']}/{name}")
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG")
