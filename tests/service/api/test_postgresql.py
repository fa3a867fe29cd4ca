"""The API on PostgreSQL, in a service that leaves the analysis to `triage worker`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asking import BASE, send
from fastapi.testclient import TestClient

from triage.service.app import create_app
from triage.service.service import Service
from triage.settings import Settings


def test_every_list_works_there_too(home: Path, new_database: Callable[[], str]) -> None:
    settings = Settings(home=home, dicom_port=0, embedded_worker=False, database_url=new_database())
    service = Service(settings)
    service.start()
    try:
        with TestClient(create_app(settings, service), base_url=BASE) as client:
            uid = send(client)
            for path in ("", "?order=urgency", "?status=received&search=x", f"/{uid}"):
                assert client.get(f"/api/v1/studies{path}").status_code == 200
            for path in ("/api/v1/cohorts", "/api/v1/quarantine", "/metrics", "/"):
                assert client.get(path).status_code == 200
            assert [s["study_instance_uid"] for s in service.look()] == [uid]
            assert client.get("/api/v1/studies/%00").status_code == 404
            checks = client.get("/readyz").json()["checks"]
            assert checks["database"] == "ok" != checks["worker"]
            assert client.post(f"/api/v1/studies/{uid}/cancel").status_code == 200
            assert client.get(f"/api/v1/studies/{uid}").json()["reason"]["code"] == "CANCELLED"
            assert client.delete(f"/api/v1/studies/{uid}").status_code == 200
    finally:
        service.stop()
