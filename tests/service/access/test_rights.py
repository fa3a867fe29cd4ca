"""Every route with every role and none; who sends does not read, and who reads does not send."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import httpx
import pytest
from asking import ZIP, study_zip
from house import House, until
from instances import study_uid
from walk import DOCUMENT, Route, documented, every_route

from triage.service.access import audit, fhir, rights
from triage.service.access.looks import Looks
from triage.service.access.principal import Principal, Role, local
from triage.service.app import create_app
from triage.service.records import Database, DatabaseBusyError

EVERYBODY = frozenset({"everybody"})


@pytest.fixture(scope="module")
def routes(place: House) -> list[Route]:
    return every_route(create_app(place.service.settings, place.service))[0]


def answered(place: House, role: str | None, route: Route) -> httpx.Response:
    """The head of the answer: a stream without end is not read."""
    client = place.client(role)
    with client.stream(route.method, route.url) as answer:
        if "event-stream" not in answer.headers.get("content-type", ""):
            answer.read()
    return answer


@pytest.mark.parametrize("role", [None, *Role])
def test_every_route_with_every_role_and_none(
    place: House, routes: list[Route], role: str | None
) -> None:
    table = documented()
    for route in routes:
        allowed = table[route.label]
        answer = answered(place, role, route)
        if allowed == EVERYBODY:
            assert answer.status_code not in (403,), (route.label, answer.status_code)
            if route.name != "start_session":
                assert answer.status_code != 401, route.label
        elif role in allowed:
            assert answer.status_code not in (401, 403), (role, route.label, answer.text)
            assert not answer.headers.get("location", "").startswith("/login"), route.label
        elif route.name in rights.PAGES and route.method == "GET":
            assert answer.status_code == 303, (role, route.label)
            assert answer.headers["location"] == f"/login?next={route.url}"
        else:
            assert answer.status_code == (401 if role is None else 403), (role, route.label)
            assert set(answer.json()) == {"error"}


def test_the_document_names_every_route_and_no_other(routes: list[Route]) -> None:
    assert set(documented()) == {route.label for route in routes}, DOCUMENT.name


def test_the_table_has_a_row_for_every_route_and_no_other(
    place: House, routes: list[Route]
) -> None:
    names = {route.name for route in routes}
    assert names == {*rights.OPEN, *rights.API, *rights.PAGES}
    assert set(rights.LOOKS) <= {*rights.API, *rights.PAGES}
    assert not {*rights.API} & {*rights.PAGES} and not rights.OPEN & {*rights.API, *rights.PAGES}
    _, others = every_route(create_app(place.service.settings, place.service))
    assert {getattr(route, "name", None) for route in others} <= rights.OPEN_MOUNTS


def test_every_look_and_action_has_its_words() -> None:
    assert {action for action, _ in rights.LOOKS.values()} <= set(audit.ACTIONS)
    assert set(fhir.KINDS) == set(audit.ACTIONS)


def test_a_route_that_nobody_wrote_down_is_refused(
    place: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(rights.API, "list_studies")
    assert place.client("admin").get("/api/v1/studies").status_code == 403


def test_a_viewer_cannot_send(place: House) -> None:
    upload = place.client("viewer").post("/api/v1/studies", content=study_zip(1), headers=ZIP)
    assert upload.status_code == 403
    stow = place.client("viewer").post(
        "/dicom-web/studies",
        content=b"--b--",
        headers={"content-type": 'multipart/related; type="application/dicom"; boundary=b'},
    )
    assert stow.status_code == 403
    assert place.client("admin").get(f"/api/v1/studies/{study_uid(1)}").status_code == 404


def test_a_sender_learns_nothing_of_what_it_sent(place: House) -> None:
    """Not even by sending once more what was analysed already."""
    sender, viewer, uid = place.client("sender"), place.client("viewer"), study_uid(2)
    data = study_zip(2, comment="suspected")
    assert sender.post("/api/v1/studies", content=data, headers=ZIP).status_code == 202
    url = f"/api/v1/studies/{uid}"
    until(lambda: viewer.get(url).json()["priority"] == "stat")
    again = sender.post("/api/v1/studies", content=data, headers=ZIP)
    (told,) = again.json()["studies"]
    assert again.json()["duplicates"] == 3 and told["study_instance_uid"] == uid
    assert (told["status"], told["priority"], told["targets"]) == ("received", None, {})
    assert '"suspected"' not in again.text and '"stat"' not in again.text
    for path in ("/api/v1/studies", url, f"{url}/overlays/liver_1.png", "/api/v1/events"):
        assert sender.get(path).status_code == 403
    order = {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "identifier": [{"type": {"coding": [{"code": "ACSN"}]}, "value": "A2"}],
        "subject": {"identifier": {"value": "P2"}},
        "code": {"text": "CT abdomen"},
    }
    taken = sender.post("/api/v1/orders", json=order)
    assert taken.status_code == 201 and uid not in taken.text
    assert uid in place.client("admin").post("/api/v1/orders", json=order).text
    received = [row for row in place.audit("image.received") if row["actor"] == "token:for-sender"]
    assert received[-1]["details"]["images"] == 3
    assert received[-1]["details"]["study_instance_uid"] == uid


def test_looks_are_on_record_once_and_by_whom(place: House) -> None:
    uid = study_uid(3)
    admin = place.client("admin")
    admin.post("/api/v1/studies", content=study_zip(3), headers=ZIP)
    until(lambda: admin.get(f"/api/v1/studies/{uid}").json()["finished_at"])
    vera = place.browser("vera")
    for _ in range(3):
        assert vera.get(f"/api/v1/studies/{uid}").status_code == 200
        assert vera.get(f"/api/v1/studies/{uid}/overlays/liver_1.png").status_code == 200
    assert vera.post(f"/api/v1/studies/{uid}/acknowledge").status_code == 200
    assert vera.delete(f"/api/v1/studies/{uid}").status_code == 403
    assert admin.delete(f"/api/v1/studies/{uid}").status_code == 200
    told = [
        (row["actor"], row["action"], row["outcome"])
        for row in place.audit()
        if row["details"].get("study_instance_uid") == uid or row["action"] == "access.refused"
    ]
    for expected in (
        ("vera", "study.opened", "success"),
        ("vera", "study.exported", "success"),
        ("vera", "study.acknowledged", "success"),
        ("vera", "access.refused", "failure"),
        ("token:for-admin", "study.deleted", "success"),
    ):
        assert told.count(expected) == 1, expected


def test_a_look_that_cannot_be_recorded_is_refused_but_for_this_machine(home: Path) -> None:
    database = Database(f"sqlite:///{home}.db", busy_s=0.05)
    database.upgrade()
    other = sqlite3.connect(f"{home}.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    now = 0.0
    looks = Looks(database, clock=lambda: now)
    somebody = Principal("vera", frozenset({Role.VIEWER}), "session")
    with pytest.raises(DatabaseBusyError):
        looks.note(somebody, "list.opened")
    looks.note(local(), "list.opened")
    other.execute("ROLLBACK")
    other.close()
    looks.note(local(), "list.opened")  # not yet: it was away a moment ago
    now = 31.0
    for who in (local(), somebody):
        looks.note(who, "list.opened")
        looks.note(who, "list.opened")
    with database.reading() as session:
        assert [row["actor"] for row in audit.rows(session)] == ["local", "vera"]
    database.close()
