"""A series out of a real Orthanc, its results back into the study: `scripts/orthanc-round-trip`."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient

from tests.delivery.orthanc import Orthanc, free_port, needed
from tests.delivery.pipeline import WITH_PICTURES
from tests.results.dicom import folders
from tests.results.dicom.test_coordinates import reported_point
from triage.delivery import outbox
from triage.service.app import create_app
from triage.service.service import Service
from triage.settings import Settings

pytestmark = pytest.mark.long
RESULTS = Counter({"OT": 10, "SEG": 2, "SR": 2, "KO": 1})  # 6 captures and 4 maps are OT


@dataclass
class Hospital:
    orthanc: Orthanc
    service: Service
    client: TestClient

    def study(self, uid: str) -> Any:
        return self.client.get(f"/api/v1/studies/{uid}").json()

    def delivery(self, uid: str, version: int = 1) -> dict[str, Any]:
        rows = self.client.get("/api/v1/deliveries", params={"limit": 500}).json()["deliveries"]
        mine = (r for r in rows if r["study_instance_uid"] == uid and r["version"] == version)
        return next(mine, {"state": "", "last_error": "", "attempts": 0})

    def until(self, ready: Callable[[], Any], seconds: float = 150) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := ready():
                return found
            time.sleep(0.1)
        raise AssertionError("it did not come to that")

    def arrived(self, uid: str, version: int = 1) -> None:
        self.until(lambda: self.delivery(uid, version)["state"] == "done")

    def kinds(self, uid: str) -> Counter[str]:
        return Counter(modality for modality, _ in self.orthanc.instances(uid).values())


@pytest.fixture(scope="module", params=["C-MOVE, C-STORE", "WADO-RS, STOW-RS"])
def hospital(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hospital]:
    needed()
    home = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    orthanc = Orthanc(home / "orthanc", port)
    orthanc.start()
    web = request.param.startswith("WADO")
    where: dict[str, Any] = (
        {"pacs_web": orthanc.web, "deliver_stow": orthanc.web}
        if web
        else {"pacs": orthanc.address, "deliver_dicom": orthanc.address}
    )
    settings = Settings(
        home=home / "home",
        dicom_port=port,
        series_quiet_s=0.3,
        prewarm=False,
        deliver_timeout_s=4.0,
        deliver_attempts=200,
        **where,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "FIRST_S", 0.2)
        patch.setattr(outbox, "LONGEST_S", 1.0)
        service = Service(settings, load=WITH_PICTURES)
        service.start()
        try:
            app = create_app(settings, service)
            with TestClient(app, base_url="http://127.0.0.1") as client:
                yield Hospital(orthanc, service, client)
        finally:
            service.stop()
            orthanc.stop()


def sent(hospital: Hospital, folder: Path, pose: str = "oblique") -> tuple[str, folders.Case]:
    """A series in Orthanc, fetched by us; its StudyInstanceUID."""
    case = folders.case(folder, pose)
    hospital.orthanc.put(case.images)
    first = pydicom.dcmread(next(case.images.glob("*.dcm")), stop_before_pixels=True)
    uid = str(first.StudyInstanceUID)
    answer = hospital.client.post(f"/api/v1/pacs/studies/{uid}")
    assert answer.status_code == 200, answer.text
    return uid, case


@pytest.mark.parametrize("pose", ["oblique", "oblique_feet_first_decubitus"])
def test_results_come_back_into_the_study(hospital: Hospital, tmp_path: Path, pose: str) -> None:
    uid, case = sent(hospital, tmp_path, pose)
    hospital.arrived(uid)
    assert hospital.kinds(uid) == Counter({"CT": 14}) + RESULTS
    served: dict[str, pydicom.Dataset] = {}
    for modality, key in hospital.orthanc.instances(uid).values():
        if modality != "CT":
            data = hospital.orthanc.get(f"/instances/{key}/file")
            served[key] = pydicom.dcmread(io.BytesIO(data))
            (tmp_path / f"{key}.dcm").write_bytes(data)
    assert {str(d.PatientName) for d in served.values()} == {"MÜLLER^ÉLODIE"}
    (report,) = [k for k, d in served.items() if d.Modality == "SR" and d.InstanceNumber == 1]
    assert np.abs(reported_point(tmp_path / f"{report}.dcm") - case.lesion_lps).max() < 0.5
    # fetched again with our results in it, nothing is new to us: no loop
    before = hospital.study(uid)
    assert hospital.client.post(f"/api/v1/pacs/studies/{uid}").status_code == 200
    time.sleep(1.0)
    after = hospital.study(uid)
    assert after["version"] == before["version"] == 1 and after["instances"] == 14
    assert hospital.kinds(uid) == Counter({"CT": 14}) + RESULTS


def test_sent_again_nothing_is_there_twice(hospital: Hospital, tmp_path: Path) -> None:
    uid, _ = sent(hospital, tmp_path)
    hospital.arrived(uid)
    there = hospital.orthanc.instances(uid)
    hospital.client.post(f"/api/v1/studies/{uid}/deliver")
    hospital.arrived(uid)
    assert hospital.orthanc.instances(uid) == there


def test_orthanc_down(hospital: Hospital, tmp_path: Path) -> None:
    uid, _ = sent(hospital, tmp_path)
    hospital.arrived(uid)
    hospital.orthanc.stop()
    hospital.client.post(f"/api/v1/studies/{uid}/analyse")
    hospital.until(lambda: hospital.delivery(uid, 2)["attempts"] >= 2)
    assert hospital.study(uid)["status"] == "analysed"
    assert hospital.delivery(uid, 2)["state"] == "waiting"
    hospital.orthanc.start()
    hospital.arrived(uid, 2)
    assert hospital.kinds(uid) == Counter({"CT": 14}) + RESULTS + RESULTS  # both versions, once


def test_orthanc_refusing(hospital: Hospital, tmp_path: Path) -> None:
    uid, _ = sent(hospital, tmp_path)
    hospital.arrived(uid)
    hospital.orthanc.stop()
    # it knows neither our AE title nor a user without a password any more
    hospital.orthanc.start(
        DicomAlwaysAllowStore=False,
        DicomModalities={},
        AuthenticationEnabled=True,
        RegisteredUsers={"somebody": "else"},
    )
    hospital.client.post(f"/api/v1/studies/{uid}/analyse")
    refused = hospital.until(lambda: (row := hospital.delivery(uid, 2))["last_error"] and row)
    assert refused["state"] in ("waiting", "dead"), refused
    hospital.orthanc.stop()
    hospital.orthanc.start()
    if hospital.delivery(uid, 2)["state"] == "dead":
        hospital.client.post(f"/api/v1/deliveries/{refused['id']}/resend")
    hospital.arrived(uid, 2)
    assert hospital.kinds(uid) == Counter({"CT": 14}) + RESULTS + RESULTS


def test_orthanc_slow(hospital: Hospital, tmp_path: Path) -> None:
    uid, _ = sent(hospital, tmp_path)
    hospital.arrived(uid)
    hospital.orthanc.freeze(True)
    try:
        begun = time.monotonic()
        hospital.client.post(f"/api/v1/studies/{uid}/analyse")
        hospital.until(lambda: hospital.study(uid)["version"] == 2)
        analysed = time.monotonic() - begun
        hospital.until(lambda: hospital.delivery(uid, 2)["last_error"])
        print(f"analysed in {analysed:.1f} s while Orthanc stood still")
    finally:
        hospital.orthanc.freeze(False)
    hospital.arrived(uid, 2)
    assert hospital.kinds(uid) == Counter({"CT": 14}) + RESULTS + RESULTS
