"""Studies fetched from a PACS: one that speaks DICOMweb, one that speaks C-FIND and C-MOVE.

The peers are small but real: an HTTP server and pynetdicom's own Q/R services on loopback.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from instances import CT, ct, sop_uid, study_uid
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from ward import Ward, until

from triage.service.intake.accept import State
from triage.service.intake.pull import (
    STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE,
    DimsePacs,
    PullError,
    WebPacs,
    pacs,
    parse_address,
)
from triage.service.records import studies

STUDY = study_uid(1)
IMAGES = [ct(1, 1, n) for n in range(1, 6)]


def row() -> Dataset:
    data = Dataset()
    data.StudyInstanceUID, data.PatientID, data.PatientName = STUDY, "P1", "Yamada^Taro"
    data.StudyDate, data.AccessionNumber = "20261121", "A1"
    data.ModalitiesInStudy, data.NumberOfStudyRelatedInstances = ["CT", "SR"], len(IMAGES)
    return data


class WebPeer(BaseHTTPRequestHandler):
    """QIDO-RS and WADO-RS of one study; `cut` ends the answer too early."""

    cut = False
    fail = False

    def do_GET(self) -> None:
        if self.fail:
            self.send_error(500)
        elif self.path.startswith("/dicom-web/studies?"):
            self._answer("application/dicom+json", f"[{row().to_json()}]".encode())
        else:
            parts = [b"--x\r\nContent-Type: application/dicom\r\n\r\n" + data for data in IMAGES]
            body = b"\r\n".join(parts) + b"\r\n--x--\r\n"
            kind = 'multipart/related; type="application/dicom"; boundary=x'
            self._answer(kind, body[: len(body) // 2] if self.cut else body)

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), WebPeer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    server.shutdown()
    server.server_close()


def test_dicomweb_lists_and_fetches(ward: Ward, web: str) -> None:
    (found,) = WebPacs(ward.intake, web).find({"PatientID": "P1"})
    assert (found.study_instance_uid, found.patient_name) == (STUDY, "Yamada^Taro")
    assert (found.modalities, found.instances) == ("CT\\SR", 5)
    upload = WebPacs(ward.intake, web).fetch(STUDY)
    assert upload.counts[State.STORED] == 5
    assert {i.sop_instance_uid for i in ward.instances()} == {sop_uid(1, 1, n) for n in range(1, 6)}
    until(lambda: bool(ward.ready))  # a fetched study is complete at once
    (study,) = ward.studies()
    assert not studies.is_incomplete(study)


def test_a_pacs_that_breaks_off_leaves_the_study_incomplete(
    ward: Ward, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WebPeer, "cut", True)
    with pytest.raises(PullError):
        WebPacs(ward.intake, web).fetch(STUDY)
    (study,) = ward.studies()
    assert studies.is_incomplete(study)
    monkeypatch.setattr(WebPeer, "cut", False)
    WebPacs(ward.intake, web).fetch(STUDY)
    assert not studies.is_incomplete(ward.studies()[0])


def test_a_pacs_that_is_down_or_refuses(
    ward: Ward, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WebPeer, "fail", True)
    with pytest.raises(PullError, match="500"):
        WebPacs(ward.intake, web).find({})
    with pytest.raises(PullError):
        WebPacs(ward.intake, "http://127.0.0.1:9/dicom-web").find({})
    with pytest.raises(PullError):
        DimsePacs(ward.intake, "PACS@127.0.0.1:9").find({})
    with pytest.raises(PullError):
        WebPacs(ward.intake, web).fetch("../../etc")
    with pytest.raises(PullError, match="Colour"):
        WebPacs(ward.intake, web).find({"Colour": "red"})
    assert pacs(ward.intake) is None


@pytest.fixture
def peer(ward: Ward) -> Iterator[str]:
    """A PACS that moves its one study to our receiver."""

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        answer = row()
        answer.QueryRetrieveLevel = "STUDY"
        if event.identifier.StudyInstanceUID in ("", STUDY):
            yield 0xFF00, answer

    def move(event: Any) -> Iterator[Any]:
        yield "127.0.0.1", ward.port
        yield len(IMAGES)
        for data in IMAGES:
            yield 0xFF00, dcmread(io.BytesIO(data))

    entity = AE(ae_title="PACS")
    entity.add_supported_context(STUDY_ROOT_FIND)
    entity.add_supported_context(STUDY_ROOT_MOVE)
    entity.add_requested_context(CT)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_FIND, find), (evt.EVT_C_MOVE, move)],
    )
    assert server is not None
    yield f"PACS@127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_dimse_lists_and_fetches(ward: Ward, peer: str) -> None:
    (found,) = DimsePacs(ward.intake, peer).find({"StudyInstanceUID": STUDY})
    assert (found.patient_id, found.modalities, found.instances) == ("P1", "CT\\SR", 5)
    upload = DimsePacs(ward.intake, peer).fetch(STUDY)
    (study,) = ward.studies()
    assert upload.studies == [study.id]
    assert (study.instance_count, studies.is_incomplete(study)) == (5, False)
    with pytest.raises(PullError, match="no such study"):
        DimsePacs(ward.intake, peer).fetch("1.2.3")


def test_the_settings_name_the_pacs(open_ward: Callable[..., Ward]) -> None:
    assert isinstance(pacs(open_ward(pacs="PACS@host:104").intake), DimsePacs)
    assert parse_address("PACS@[::1]:104") == ("PACS", "::1", 104)
    for wrong in ("host:104", "PACS@host", "PACS@host:0", "A" * 17 + "@host:104"):
        with pytest.raises(PullError):
            parse_address(wrong)
