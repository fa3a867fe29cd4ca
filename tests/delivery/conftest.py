"""A service whose results go to a PACS, a FHIR server, an HL7 receiver, a webhook and a folder."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.delivery.peers import Hl7, Pacs, Web, running
from tests.delivery.pipeline import LOAD
from tests.dicom import write
from tests.results.dicom.folders import WHO
from triage.delivery import outbox
from triage.service.app import create_app
from triage.service.service import Service
from triage.settings import Settings

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
BASE = "http://127.0.0.1"


@dataclass
class Ward:
    service: Service
    client: TestClient
    pacs: Pacs
    stow: Web
    fhir: Web
    hook: Web
    hl7: Hl7
    folder: Path

    def send(self, folder: Path, first: int = 0, last: int | None = None) -> str:
        """Upload the slices of a series; returns the StudyInstanceUID."""
        import pydicom

        files = sorted(folder.glob("*.dcm"))[first:last]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in files:
                archive.write(path, path.name)
        answer = self.client.post(
            "/api/v1/studies",
            content=buffer.getvalue(),
            headers={"content-type": "application/zip"},
        )
        assert answer.status_code == 202, answer.text
        return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)

    def deliveries(self, study: str, version: int | None = None) -> list[dict[str, Any]]:
        rows = self.client.get("/api/v1/deliveries", params={"limit": 500}).json()["deliveries"]
        mine = [r for r in rows if r["study_instance_uid"] == study]
        return [r for r in mine if version is None or r["version"] == version]

    def settled(
        self, study: str, version: int, ready: Callable[[list[dict[str, Any]]], bool] | None = None
    ) -> list[dict[str, Any]]:
        """The deliveries of this version, once none of them waits (or `ready` says so)."""
        done = ready or (lambda rows: all(r["state"] != "waiting" for r in rows))
        end = time.monotonic() + 240
        while time.monotonic() < end:
            rows = self.deliveries(study, version)
            if len(rows) == len(self.service.deliveries.destinations) and done(rows):
                return rows
            time.sleep(0.1)
        raise AssertionError(f"deliveries are not settled: {rows}")


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    home = tmp_path_factory.mktemp("deliver")
    peers = Pacs(), Web(), Web(), Web(), Hl7()
    pacs, stow, fhir, hook, hl7 = peers
    folder = home / "messages"
    folder.mkdir()
    settings = Settings(
        home=home / "home",
        dicom_port=0,
        series_quiet_s=0.3,
        prewarm=False,
        deliver_dicom=pacs.address,
        deliver_stow=stow.address,
        deliver_fhir=fhir.address,
        deliver_hl7=hl7.address,
        deliver_hl7_folder=folder,
        deliver_webhook=hook.address,
        deliver_webhook_secret=SECRET,
        deliver_timeout_s=20.0,  # peers share this process with everything else
        deliver_attempts=3,
        hl7_port=0,
    )
    with running(*peers), pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "FIRST_S", 0.2)  # pauses between tries
        service = Service(settings, load=LOAD)
        service.deliveries.outbox._look_s = 0.1
        service.start()
        try:
            app = create_app(settings, service)
            with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
                ward = Ward(service, client, pacs, stow, fhir, hook, hl7, folder)
                yield ward
                ward.pacs.stop()  # a test may have started another one
        finally:
            service.stop()


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A phantom of 14 slices, a study of its own."""
    folder = tmp_path / "series"
    write.write_series(folder, write.turned(write.phantom(), "LPS"), **WHO)
    return folder
