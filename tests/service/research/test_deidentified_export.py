"""From a study in the service to a zip without a name; and who may have it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import BASE, ZIP, finished, zip_of
from fastapi.testclient import TestClient
from instances import ct, study_uid
from pydicom import dcmread
from quick_pipeline import LOAD

from triage.cli.main import call
from triage.dicom import open_study
from triage.service.access import audit
from triage.service.app import create_app
from triage.service.research import export
from triage.service.research.key import KEY_NAME, KeyUnfitError, load_key
from triage.service.service import Service
from triage.settings import Settings
from triage.settings import settings as process_settings

NAME, STUDY = "Zyqxwvu", 4711
HEADER: dict[str, Any] = {
    **{"PatientName": f"{NAME}^TEST", "PatientID": f"{NAME}-1", "InstitutionName": NAME},
    **{"PatientComments": "suspected", "StudyDescription": NAME, "SeriesDescription": NAME},
    **{"PositionReferenceIndicator": "", "PatientPosition": "HFS"},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With one study that is analysed, and that a reader has seen."""
    home = tmp_path_factory.mktemp("research") / "home"
    settings = Settings(home=home, dicom_port=0, series_quiet_s=0.3, research_export=True)
    service = Service(settings, load=LOAD)
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service.settings, service), base_url=BASE) as client:
        files = {f"{k}.dcm": ct(STUDY, number=k, **HEADER) for k in range(1, 13)}
        files["capture.dcm"] = ct(
            STUDY, 2, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT", **HEADER
        )
        client.post("/api/v1/studies", content=zip_of(files), headers=ZIP)
        finished(client, study_uid(STUDY))
        said = {"agree": False, "comment": f"no injury in {NAME}"}
        where = f"/api/v1/studies/{study_uid(STUDY)}/findings/liver/review"
        assert client.post(where, json=said).status_code == 200
        yield client


def taken(client: TestClient) -> zipfile.ZipFile:
    answer = client.get(f"/api/v1/studies/{study_uid(STUDY)}/deidentified")
    assert answer.status_code == 200, answer.text
    assert NAME not in str(answer.headers)
    return zipfile.ZipFile(io.BytesIO(answer.content))


@pytest.fixture(scope="module")
def archive(client: TestClient) -> zipfile.ZipFile:
    return taken(client)


def test_nothing_in_the_zip_names_the_patient(archive: zipfile.ZipFile, tmp_path: Path) -> None:
    for name in archive.namelist():
        content = archive.read(name)
        assert NAME.lower() not in name.lower()
        assert NAME.lower().encode() not in content.lower()
        assert study_uid(STUDY).encode() not in content and b"20261121" not in content
    archive.extractall(tmp_path)
    with open_study(tmp_path / "train_images", Settings(home=tmp_path, min_slices=1)) as study:
        assert [len(s.instances) for s in study.series] == [12]  # what came is a study again


def test_answer_and_reviews_go_along(archive: zipfile.ZipFile) -> None:
    (name,) = [n for n in archive.namelist() if n.endswith(".json")]
    answer = json.loads(archive.read(name))
    images = [dcmread(io.BytesIO(archive.read(n))) for n in archive.namelist() if ".dcm" in n]
    assert {i.SeriesInstanceUID for i in images} == {
        answer["targets"]["liver"]["series_instance_uid"]
    }
    assert name == f"answers/{images[0].PatientID}_{images[0].StudyInstanceUID}.json"
    assert answer["targets"]["liver"]["verdict"] == "suspected"
    assert answer["reviews"] == [
        {
            **{"target": "liver", "verdict": "suspected", "score": 0.9},
            **{"agree": False, "label": 0, "reader": 1},
        }
    ]
    assert answer["deidentified"]["left_out"] == {"not_ct": 1}
    assert answer["deidentified"]["images"] == len(images) == 12


def test_it_is_the_same_each_time_and_on_record(
    client: TestClient, service: Service, archive: zipfile.ZipFile
) -> None:
    again = taken(client)
    assert again.namelist() == archive.namelist()
    with service.records.reading() as session:
        found = [r for r in audit.rows(session) if r["action"] == "study.deidentified"]
    assert found[-1]["details"]["images"] == 12 and found[-1]["actor"] == "local"
    assert NAME not in json.dumps([r["details"] for r in found])
    assert not list(service.files.work.iterdir())  # nothing of it stays


def test_it_is_off_until_allowed(client: TestClient, service: Service) -> None:
    allowed = service.settings
    assert not Settings.model_fields["research_export"].default
    service.settings = allowed.model_copy(update={"research_export": False})
    try:
        answer = client.get(f"/api/v1/studies/{study_uid(STUDY)}/deidentified")
    finally:
        service.settings = allowed
    assert answer.status_code == 409 and "TRIAGE_RESEARCH_EXPORT" in answer.text
    assert client.get("/api/v1/studies/1.2.3/deidentified").status_code == 404


def test_the_command_writes_the_same(
    archive: zipfile.ZipFile,
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRIAGE_HOME", str(service.home))
    arguments = ["deidentify", study_uid(STUDY), "--out", str(tmp_path / "out")]
    process_settings.cache_clear()
    try:
        assert call(arguments) == 2 and "TRIAGE_RESEARCH_EXPORT" in capsys.readouterr().err
        monkeypatch.setenv("TRIAGE_RESEARCH_EXPORT", "true")
        process_settings.cache_clear()
        assert call(arguments) == 0
    finally:
        process_settings.cache_clear()
    there = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert set(archive.namelist()) <= there


def test_a_study_without_images_for_research_gives_none(
    client: TestClient, service: Service
) -> None:
    """Burnt-in annotations in every image: a refusal, and no empty zip."""
    files = {f"{k}.dcm": ct(4712, number=k, BurnedInAnnotation="YES") for k in range(1, 4)}
    client.post("/api/v1/studies", content=zip_of(files), headers=ZIP)
    finished(client, study_uid(4712))
    answer = client.get(f"/api/v1/studies/{study_uid(4712)}/deidentified")
    assert answer.status_code == 409 and "burnt in" in answer.text


def test_the_key_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    key = load_key(settings)
    path = tmp_path / "home" / KEY_NAME
    assert load_key(settings) == key == path.read_bytes() and path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(KeyUnfitError, match="640"):
        load_key(settings)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(KeyUnfitError, match="5"):
        load_key(settings)


def test_one_at_a_time(service: Service, tmp_path: Path) -> None:
    with export._one_at_a_time, pytest.raises(export.CannotExportError) as refused:
        export.export_study(
            service.settings, service.records, service.files, "0" * 32, tmp_path, by="x"
        )
    assert refused.value.code == "BUSY"
