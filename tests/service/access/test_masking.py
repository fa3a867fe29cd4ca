"""Patient fields, hidden on request: by the request, the session, or the settings."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from house import House

from triage.service.access.masking import FIELDS, HIDDEN, masked

STUDY = {
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00100020": {"vr": "LO", "Value": ["PID-1"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DOE^JANE"}]},
    "00080050": {"vr": "SH", "Value": ["ACC-1"]},
    "00080020": {"vr": "DA", "Value": ["20261121"]},
}


@pytest.fixture
def pacs() -> Iterator[str]:
    """Answers QIDO-RS with one study."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/dicom+json")
            self.end_headers()
            self.wfile.write(json.dumps([STUDY]).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def found(client: Any, query: str = "") -> dict[str, str]:
    answer = client.get(f"/api/v1/pacs/studies?patient_id=PID-1{query}")
    assert answer.status_code == 200, answer.text
    study: dict[str, str] = answer.json()["studies"][0]
    return study


def test_by_request_and_by_session(pacs: str, open_house: Callable[..., House]) -> None:
    place = open_house(pacs_web=pacs, embedded_worker=False)
    vera = place.browser("vera")
    assert found(vera)["patient_name"] == "DOE^JANE"
    hidden = found(vera, "&mask=true")
    assert (hidden["patient_name"], hidden["patient_id"]) == (HIDDEN, HIDDEN)
    assert (hidden["accession_number"], hidden["study_date"]) == (HIDDEN, "20261121")
    assert vera.put("/api/v1/session", json={"mask": True}).json()["mask"] is True
    assert vera.get("/api/v1/session").json()["mask"] is True
    assert found(vera)["patient_name"] == HIDDEN
    assert found(vera, "&mask=false")["patient_name"] == HIDDEN  # no wider rule is lifted
    assert found(place.browser("ada"))["patient_name"] == "DOE^JANE"
    vera.put("/api/v1/session", json={"mask": False})
    assert found(vera)["patient_name"] == "DOE^JANE"
    no_session = place.client("viewer").put("/api/v1/session", json={"mask": True})
    assert no_session.status_code == 409
    searches = place.audit("pacs.searched")
    assert {row["actor"] for row in searches} == {"vera", "ada"}
    assert "PID-1" not in str(searches)


def test_by_settings_for_everybody(pacs: str, open_house: Callable[..., House]) -> None:
    place = open_house(pacs_web=pacs, mask_patients=True, embedded_worker=False)
    ada = place.browser("ada")
    assert ada.put("/api/v1/session", json={"mask": False}).json()["mask"] is True
    for client in (ada, place.client("admin")):
        assert found(client)["patient_name"] == HIDDEN


def test_every_field_at_any_depth() -> None:
    whole = {"a": [dict.fromkeys(FIELDS, "x")], "patient": {"patient_name": "x", "id": "y"}}
    assert masked(whole) == {
        "a": [dict.fromkeys(FIELDS, HIDDEN)],
        "patient": {"patient_name": HIDDEN, "id": "y"},
    }
    assert masked({"patient_name": "", "patient_id": None}) == {
        "patient_name": "",
        "patient_id": None,
    }
    assert masked(whole, False) is whole
