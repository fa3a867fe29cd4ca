"""The list and one study, with the real service around a quick analysis."""

from __future__ import annotations

import pytest
from asking import NO_DICOM, ZIP, finished, send, study_zip
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from triage.results.report import report_schema
from triage.types import DISCLAIMER, TARGETS

CONTRACT = {
    "study_instance_uid", "status", "priority", "targets", "reason", "received_at", "flagged_at",
}  # fmt: skip


def test_a_study_comes_back_with_report_versions_series_and_timeline(client: TestClient) -> None:
    uid = send(client, "suspected")
    done = finished(client, uid)
    assert done["status"] == "analysed"
    assert (done["priority"], done["targets"]["liver"]["verdict"]) == ("stat", "suspected")
    assert set(done["targets"]) == {t.value for t in TARGETS}
    assert done["flagged_at"] == done["finished_at"] >= done["last_image_at"] >= done["received_at"]
    Draft202012Validator(report_schema()).validate(done["report"])
    (version,) = done["versions"]
    assert version["current"] and version["status"] == "analysed"
    (series,) = done["series_list"]
    assert series["instances"] == 3 and series["bytes"] > 0
    assert {"received", "last image", "started", "finished", "flagged"} <= {
        m["what"] for m in done["timeline"]
    }
    assert client.get(f"/api/v1/studies/{done['id']}").json() == done  # our own id finds it, too


def test_the_list_is_newest_first_with_the_fields_of_the_contract(client: TestClient) -> None:
    uids = [send(client) for _ in range(3)]
    page = client.get("/api/v1/studies", params={"limit": 3}).json()
    assert [s["study_instance_uid"] for s in page["studies"]] == uids[::-1]
    assert all(set(s) >= CONTRACT for s in page["studies"])
    assert page["disclaimer"] == DISCLAIMER
    assert page["total"] >= 3
    second = client.get("/api/v1/studies", params={"limit": 1, "offset": 1}).json()
    assert [s["study_instance_uid"] for s in second["studies"]] == [uids[1]]
    for uid in uids:
        finished(client, uid)


def test_filters(client: TestClient) -> None:
    flagged, plain = send(client, "suspected"), send(client)
    for uid in (flagged, plain):
        finished(client, uid)
    found = client.get("/api/v1/studies", params={"priority": "stat", "limit": 500}).json()
    uids = [s["study_instance_uid"] for s in found["studies"]]
    assert flagged in uids and plain not in uids
    found = client.get("/api/v1/studies", params={"search": plain[-8:]}).json()
    assert plain in [s["study_instance_uid"] for s in found["studies"]]
    client.post(f"/api/v1/studies/{plain}/acknowledge")
    found = client.get("/api/v1/studies", params={"acknowledged": True, "limit": 500}).json()
    assert [s["study_instance_uid"] for s in found["studies"]] == [plain]


def test_what_cannot_be_analysed_is_a_study_with_a_reason(client: TestClient) -> None:
    answer = client.post("/api/v1/studies", content=NO_DICOM, headers=ZIP)
    assert answer.status_code == 202, answer.text
    (study,) = answer.json()["studies"]
    done = finished(client, study["id"])
    assert (done["status"], done["priority"]) == ("not_analysed", "urgent")
    assert done["reason"]["code"] == "UNREADABLE" and done["reason"]["fix"]
    assert answer.headers["location"] == f"/api/v1/studies/{study['id']}"


def test_a_child_that_dies_costs_one_retry_and_then_the_study_says_so(client: TestClient) -> None:
    once, always = send(client, "crash once"), send(client, "crash")
    assert finished(client, once)["status"] == "analysed"
    done = finished(client, always)
    assert (done["status"], done["priority"]) == ("not_analysed", "urgent")
    assert done["reason"]["code"] == "WORKER_FAILED"


def test_cancel_analyse_again_and_delete(client: TestClient) -> None:
    uid = send(client, "slow")
    assert client.post(f"/api/v1/studies/{uid}/analyse").status_code == 409  # it waits already
    assert client.post(f"/api/v1/studies/{uid}/cancel").status_code == 200
    done = finished(client, uid)
    assert (done["status"], done["reason"]["code"]) == ("not_analysed", "CANCELLED")
    assert client.post(f"/api/v1/studies/{uid}/cancel").status_code == 409
    assert client.post(f"/api/v1/studies/{uid}/analyse").status_code == 202
    assert client.delete(f"/api/v1/studies/{uid}").status_code == 200  # in the middle of it
    assert client.get(f"/api/v1/studies/{uid}").status_code == 404
    assert client.delete(f"/api/v1/studies/{uid}").status_code == 404


def test_a_new_analysis_leaves_the_old_version_readable(client: TestClient) -> None:
    uid = send(client)
    finished(client, uid)
    client.post(f"/api/v1/studies/{uid}/analyse")
    done = finished(client, uid, version=2)
    assert [(v["version"], v["current"]) for v in done["versions"]] == [(1, False), (2, True)]
    for version in (1, 2):
        path = f"/api/v1/studies/{uid}/overlays/liver_1.png"
        assert client.get(path, params={"version": version}).status_code == 200


def test_the_same_zip_again_changes_nothing(client: TestClient) -> None:
    data = study_zip(77)
    first, second = (
        client.post("/api/v1/studies", content=data, headers=ZIP).json() for _ in range(2)
    )
    assert (first["stored"], second["stored"], second["duplicates"]) == (3, 0, 3)
    assert first["studies"][0]["id"] == second["studies"][0]["id"]
    done = finished(client, first["studies"][0]["id"])
    assert done["instances"] == 3 and len(done["versions"]) == 1


def test_pictures_are_served_by_the_names_of_the_report(client: TestClient) -> None:
    uid = send(client)
    finished(client, uid)
    picture = client.get(f"/api/v1/studies/{uid}/overlays/liver_1.png")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert client.get(f"/api/v1/studies/{uid}/saliency/liver").content == b"map"
    for absent in (
        "overlays/none.png",
        "overlays/..%2f..%2fstate.json",
        "overlays/%2e%2e%2freport.json",
        "saliency/spleen",
        "meshes/liver.glb",
        "volumes/1.2.3",
    ):
        answer = client.get(f"/api/v1/studies/{uid}/{absent}")
        assert answer.status_code == 404, absent
        assert set(answer.json()["error"]) == {"code", "message", "fix"}


def test_a_series_that_is_no_volume_says_why(client: TestClient) -> None:
    done = finished(client, send(client))
    answer = client.get(done["series_list"][0]["volume"], params={"resolution": "preview"})
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "TOO_FEW_SLICES"


@pytest.mark.parametrize("path", ["cohorts", "quarantine"])
def test_other_lists_answer(client: TestClient, path: str) -> None:
    assert client.get(f"/api/v1/{path}").status_code == 200
