"""Health, readiness, metrics, and the plain page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from asking import finished, send
from fastapi.testclient import TestClient

from triage.service.ready import Bundle, disk
from triage.service.service import Service
from triage.types import DISCLAIMER

CHECKS = {"database", "disk", "bundle", "worker", "dicom", "intake"}


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    answer = client.get("/readyz")
    checks = answer.json()["checks"]
    assert set(checks) == CHECKS
    assert checks["worker"] == checks["database"] == checks["dicom"] == checks["intake"] == "ok"
    assert answer.status_code == (200 if set(checks.values()) == {"ok"} else 503)


def test_a_part_that_stopped_is_not_ready(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "bundle", Bundle("no-such-bundle"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["bundle"] != "ok"


def test_swapped_weights_turn_the_bundle_red(tmp_path: Path) -> None:
    from triage.nets.bundle import find_bundle

    folder = tmp_path / "bundle"
    shutil.copytree(find_bundle("reference"), folder)
    bundle = Bundle(str(folder))
    assert bundle.check() == "ok" == bundle.check()
    weights = folder / "localiser.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert bundle.check() != "ok"


def test_a_home_that_cannot_be_measured_is_not_ok(tmp_path: Path) -> None:
    assert disk(tmp_path / "absent") != "ok"


def test_metrics_count_and_name_nobody(client: TestClient, service: Service) -> None:
    uid = send(client, "suspected")
    done = finished(client, uid)
    service.look()
    text = client.get("/metrics").text
    assert 'triage_studies{status="analysed"}' in text
    assert "triage_instances " in text
    assert 'triage_queue_length{kind="live"}' in text
    assert "triage_worker_heartbeat_age_seconds{" in text
    assert 'triage_flag_seconds_bucket{le="15.0"}' in text
    assert 'triage_stage_seconds_count{stage="total"}' in text
    for secret in (uid, done["id"], "TEST^", "P1000"):
        assert secret not in text


def test_the_page_lists_studies_with_the_disclaimer(client: TestClient) -> None:
    finished(client, send(client, "suspected"))
    page = client.get("/")
    assert DISCLAIMER in page.text and "suspected" in page.text
