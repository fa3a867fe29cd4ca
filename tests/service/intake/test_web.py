"""STOW-RS and uploaded zips through the intake, over HTTP where there is any."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from instances import ct, sop_uid, study_uid
from pydicom.dataset import Dataset
from ward import Ward, until

from triage.service import errors
from triage.service.intake.accept import NotStoredError, Source, State
from triage.service.intake.archive import take_folder, take_zip
from triage.service.intake.stow import router
from triage.service.records import analyses, quarantine

BOUNDARY = "cut-here"
DICOM = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
HERE = Source("upload", "tester")


def multipart(*parts: bytes, end: bool = True) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"\r\n".join(head + part for part in parts)
    return body + (f"\r\n--{BOUNDARY}--\r\n".encode() if end else b"")


def client_of(ward: Ward) -> TestClient:
    app = FastAPI()
    errors.install(app)
    app.include_router(router(lambda request: ward.intake))

    @app.exception_handler(OSError)
    def full(_request: Request, error: OSError) -> JSONResponse:
        return errors.fault_answer(error)  # as the app of `triage serve` does

    return TestClient(app)


@pytest.fixture
def client(ward: Ward) -> Iterator[TestClient]:
    with client_of(ward) as client:
        yield client


def post(client: TestClient, body: object, path: str = "/dicom-web/studies", **headers: str):  # type: ignore[no-untyped-def]
    return client.post(path, content=body, headers={"content-type": DICOM, **headers})


def test_stow_stores_and_says_which(client: TestClient, ward: Ward) -> None:
    answer = post(client, multipart(*(ct(1, 1, n) for n in range(1, 6))))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    data = Dataset.from_json(answer.json())
    stored = [item.ReferencedSOPInstanceUID for item in data.ReferencedSOPSequence]
    assert stored == [sop_uid(1, 1, n) for n in range(1, 6)]
    assert len(ward.instances()) == 5
    assert [s.interrupted for s in ward.studies()] == [False]
    assert post(client, multipart(ct(1, 1, 1))).status_code == 200  # again


def test_stow_says_what_failed_and_why(client: TestClient, ward: Ward) -> None:
    post(client, multipart(ct(1, 1, 1)))
    other, bad = ct(1, 1, 1, PatientComments="other"), b"no image" * 50
    answer = post(client, multipart(ct(1, 1, 2), other, bad))
    assert answer.status_code == 202
    failed = Dataset.from_json(answer.json()).FailedSOPSequence
    assert [item.FailureReason for item in failed] == [0x0111, 0xC000]
    assert failed[0].ReferencedSOPInstanceUID == sop_uid(1, 1, 1)
    assert [s.interrupted for s in ward.studies()] == [True]  # an image may be missing
    assert post(client, multipart(bad)).status_code == 409


def test_stow_of_one_study_takes_no_other(client: TestClient, ward: Ward) -> None:
    path = f"/dicom-web/studies/{study_uid(1)}"
    answer = post(client, multipart(ct(1), ct(2)), path)
    assert answer.status_code == 202
    (failed,) = Dataset.from_json(answer.json()).FailedSOPSequence
    assert failed.FailureReason == 0xA900
    assert [s.study_instance_uid for s in ward.studies()] == [study_uid(1)]


REFUSED: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "another type": (415, multipart(ct()), {"content-type": "application/dicom"}),
    "no boundary": (415, multipart(ct()), {"content-type": "multipart/related"}),
    "compressed": (415, b"\x1f\x8b" * 50, {"content-encoding": "gzip"}),
    "broken": (400, b"--other\r\n\r\nx", {}),
    "cut": (400, multipart(ct(), end=False), {}),
    "no part": (400, f"--{BOUNDARY}--\r\n".encode(), {}),
    "endless headers": (400, f"--{BOUNDARY}\r\nA: ".encode() + b"x" * 20_000, {}),
    "too large": (413, multipart(bytes(40_000)), {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_request_leaves_nothing(open_ward: Callable[..., Ward], case: str) -> None:
    status, body, headers = REFUSED[case]
    ward = open_ward(max_bytes=30_000)
    with client_of(ward) as client:
        answer = post(client, body, **headers)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"code", "message", "fix"}
    assert list(ward.files.incoming.iterdir()) == []


def test_a_full_disk_and_a_locked_database(
    client: TestClient, ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    for full, status in ((True, 507), (False, 503)):

        def fail(*_args: object, full: bool = full) -> None:
            raise NotStoredError("no", full)

        monkeypatch.setattr(ward.intake.acceptor, "submit", fail)
        with TestClient(client.app, raise_server_exceptions=False):
            try:
                answer = post(client, multipart(ct()))
            except OSError as error:  # the app makes it 507, see errors.py
                assert full and error.errno == 28
            else:
                assert answer.status_code == status


# ---- zips


def zip_at(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "upload.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_zip_is_complete_at_once(ward: Ward, tmp_path: Path) -> None:
    files = {f"../../{n}.dcm": ct(1, 1, n) for n in range(1, 15)} | {"letter.txt": b"hello"}
    upload = take_zip(ward.intake, zip_at(tmp_path, files), HERE)
    assert upload.counts[State.STORED] == 14
    assert upload.studies == [ward.studies()[0].id]
    assert list(ward.files.work.iterdir()) == []
    until(lambda: bool(ward.ready))
    assert ward.ready == [(upload.studies[0], 1)]


def test_a_damaged_image_makes_its_study_incomplete(ward: Ward, tmp_path: Path) -> None:
    path = zip_at(tmp_path, {"1": ct(1, 1, 1), "2.dcm": ct(1, 1, 2)[:300]})
    upload = take_zip(ward.intake, path, HERE)
    assert upload.lacking
    assert [s.interrupted for s in ward.studies()] == [True]
    take_zip(ward.intake, zip_at(tmp_path, {"1": ct(1, 1, 1), "2": ct(1, 1, 2)}), HERE)
    assert [s.interrupted for s in ward.studies()] == [False]


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.dcm", bytes(4 << 20))
    return buffer.getvalue()


NO_IMAGE: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "no DICOM": ("UNREADABLE", lambda folder: zip_at(folder, {"a.txt": b"hello"})),
    "empty": ("UNREADABLE", lambda folder: zip_at(folder, {})),
    "damaged": ("UNREADABLE", lambda folder: zip_at(folder, {"1.dcm": b"x" * 300})),
    "bomb": ("TOO_LARGE", lambda folder: write(folder / "bomb.zip", bomb())),
    "no zip": ("UNREADABLE", lambda folder: write(folder / "a.zip", b"PK\x03\x04" + bytes(99))),
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("case", NO_IMAGE)
def test_a_zip_without_images_is_a_study_with_a_reason(
    open_ward: Callable[..., Ward], tmp_path: Path, case: str
) -> None:
    reason, make = NO_IMAGE[case]
    ward = open_ward(max_bytes=1 << 20)
    upload = take_zip(ward.intake, make(tmp_path), HERE)
    (study,) = ward.studies()
    assert upload.studies == [study.id]
    assert (study.status, study.reason, study.priority) == ("not_analysed", reason, "urgent")
    with ward.database.reading() as session:
        assert analyses.current(session, study.id) is not None
    assert list(ward.files.work.iterdir()) == []


def test_a_folder_is_copied(ward: Ward, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = write(tmp_path / "deep" / "IM0001", ct())
    (tmp_path / "link").symlink_to("/etc/passwd")
    upload = take_folder(ward.intake, tmp_path, Source("cohort", background=True))
    assert upload.counts[State.STORED] == 1
    assert path.exists()
    assert ward.studies() == []  # the list shows live studies
    with ward.database.reading() as session:
        assert sum(quarantine.count_by_reason(session).values()) == 0
