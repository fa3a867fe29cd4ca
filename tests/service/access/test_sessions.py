"""Logging in and out, cookies, CSRF, expiry, and guessing."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from http.cookies import SimpleCookie

import pytest
from house import PASSWORD, House
from sqlalchemy import update

from triage.service.access import users
from triage.service.access.attempts import FIRST_S, FREE_ADDRESS, FREE_NAME, LONGEST_S, Attempts
from triage.service.access.users import AccessError
from triage.service.records.access_models import ApiToken, LoginSession, User
from triage.service.records.models import now

SESSION = "/api/v1/session"


def test_the_cookie_is_out_of_reach(place: House) -> None:
    answer = place.client().post(SESSION, json={"name": "Vera", "password": PASSWORD})
    cookie = SimpleCookie(answer.headers["set-cookie"])["triage_session"]
    assert cookie["httponly"] and cookie["secure"]
    assert (cookie["samesite"].lower(), cookie["path"], cookie["domain"]) == ("strict", "/", "")
    assert answer.json()["user"] == "vera" and answer.json()["roles"] == ["viewer"]
    assert cookie.value not in answer.text


def test_only_hashes_are_kept(place: House) -> None:
    browser = place.browser("vera")
    secrets = [PASSWORD, browser.cookies["triage_session"], *place.token.values()]
    home = place.service.home
    kept = b"".join(p.read_bytes() for p in home.glob("triage.db*"))
    assert kept and not [s for s in secrets if s.encode() in kept]


def test_what_changes_something_needs_the_csrf_header(place: House) -> None:
    browser = place.browser("ada")
    right = browser.headers.pop("X-CSRF-Token")
    url = f"/api/v1/studies/{'0' * 32}"
    for wrong in ({}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": right[:-1].encode() + b"\xe9"}):
        assert browser.delete(url, headers=wrong).status_code == 403
    assert browser.delete(url, headers={"X-CSRF-Token": right}).status_code == 404
    assert browser.get("/api/v1/studies").status_code == 200
    assert browser.get(SESSION).json()["csrf"] == right


def test_another_sessions_csrf_value_is_not_taken(place: House) -> None:
    ada, vera = place.browser("ada"), place.browser("vera")
    ada.headers["X-CSRF-Token"] = vera.headers["X-CSRF-Token"]
    assert ada.delete(SESSION).status_code == 403


def test_logging_out_ends_the_session_on_our_side(place: House) -> None:
    browser = place.browser("vera")
    secret = browser.cookies["triage_session"]
    assert browser.delete(SESSION).status_code == 204
    other = place.client()
    other.cookies.set("triage_session", secret, domain="127.0.0.1")
    assert other.get("/api/v1/studies").status_code == 401
    assert other.get(SESSION).json() == {
        "user": None,
        "roles": [],
        "csrf": "",
        "login": True,
        "mask": False,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"seen_at": now() - timedelta(hours=2)},  # idle
        {"expires_at": now() - timedelta(seconds=1)},  # over, however busy
    ],
    ids=["idle", "absolute"],
)
def test_sessions_end_by_themselves(place: House, change: dict[str, object]) -> None:
    browser = place.browser("vera")
    assert browser.get("/api/v1/studies").status_code == 200
    with place.service.records.session() as session:
        session.execute(update(LoginSession).values(**change))
    assert browser.get("/api/v1/studies").status_code == 401


def test_new_roles_a_new_password_and_disabling_count_at_once(place: House) -> None:
    records = place.service.records
    with records.session() as session:
        users.add(session, "tom", PASSWORD, {users.Role.VIEWER}, "console")
    tom = place.browser("tom")
    assert tom.get("/api/v1/studies").status_code == 200
    with records.session() as session:
        users.set_roles(session, "tom", {users.Role.SENDER}, "console")
    assert tom.get("/api/v1/studies").status_code == 403
    for change in (
        lambda s: users.set_password(s, "tom", "another " + PASSWORD, "console"),
        lambda s: users.set_disabled(s, "tom", True, "console"),
    ):
        with records.session() as session:
            change(session)
        assert tom.get("/api/v1/cohorts").status_code == 401
        with records.session() as session:
            users.set_password(session, "tom", PASSWORD, "console")
        again = tom.post(SESSION, json={"name": "tom", "password": PASSWORD}).status_code
        assert again in (200, 401)
    assert again == 401  # disabled


def test_events_do_not_outlive_a_login(place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triage.service.api.stream.STREAM_S", 0.2)
    browser = place.browser("vera")
    with browser.stream("GET", "/api/v1/events") as answer:
        lines = list(answer.iter_lines())  # it ends
    assert "event: hello" in lines
    browser.delete(SESSION)
    assert browser.get("/api/v1/events").status_code == 401


def test_tokens_end(place: House) -> None:
    from triage.service.access import tokens

    records = place.service.records
    with records.session() as session:
        token, _ = tokens.new(session, "short", {users.Role.VIEWER}, "console", days=1)
    client = place.client()
    client.headers["authorization"] = f"Bearer {token}"
    assert client.get("/api/v1/studies").status_code == 200
    with records.session() as session:
        old = now() - timedelta(seconds=1)
        session.execute(update(ApiToken).where(ApiToken.name == "short").values(expires_at=old))
    refused = client.get("/api/v1/studies")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert token not in refused.text


@pytest.mark.parametrize("password", ["short", "vera vera vera", "x" * 2000])
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(AccessError):
        users.hashed("vera", password)


@pytest.mark.parametrize("name", ["", "local", "a b", "ä", "x" * 65, "-x", "console"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(AccessError):
        users.checked_name(name)


# ---- guessing


def test_guessing_has_to_wait_and_says_so(open_house: Callable[..., House]) -> None:
    place = open_house(embedded_worker=False)
    client = place.client()
    codes = [
        client.post(SESSION, json={"name": "vera", "password": f"wrong {k}"}).status_code
        for k in range(FREE_NAME + 1)
    ]
    assert codes == [401] * FREE_NAME + [429]
    locked = client.post(SESSION, json={"name": "vera", "password": PASSWORD})
    assert locked.status_code == 429 and 0 < int(locked.headers["retry-after"]) <= FIRST_S
    assert place.browser("ada")  # another name from there is not locked yet
    failures = [row for row in place.audit("login") if row["outcome"] == "failure"]
    assert {row["actor"] for row in failures} == {"vera"} and len(failures) == FREE_NAME
    # a password that was typed where the name belongs is not written down
    client.post(SESSION, json={"name": "hunter2 hunter2", "password": "x"})
    assert "hunter2" not in str(place.audit())
    # whoever tries many names has to wait as well
    for k in range(FREE_ADDRESS - FREE_NAME):
        last = client.post(SESSION, json={"name": f"name{k}", "password": "x"}).status_code
    assert last == 429


def test_an_unknown_name_takes_as_long_as_a_wrong_password() -> None:
    users.right_password(None, "warm up")
    known = users.hashed("vera", PASSWORD)

    def seconds(password_hash: str | None) -> float:
        start = time.process_time()  # of the work, whatever else the machine does
        assert not users.right_password(password_hash, "wrong")
        return time.process_time() - start

    pairs = [(seconds(None), seconds(known)) for _ in range(7)]
    ratio = min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)
    assert 0.3 < ratio < 3
    assert not users.right_password(None, "nobody has this password")
    assert users.right_password(known, PASSWORD)


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_waits_double_and_end() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    waits = []
    for _ in range(FREE_NAME + 8):
        attempts.begin("vera", "10.0.0.1")
        waits.append(attempts.wait_s("vera", "10.9.9.9"))
        clock.at += waits[-1]
    assert waits[: FREE_NAME - 1] == [0] * (FREE_NAME - 1)
    assert waits[FREE_NAME - 1 : FREE_NAME + 2] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == LONGEST_S
    attempts.succeeded("vera", "10.0.0.1")
    assert attempts.wait_s("vera", "10.9.9.9") == 0


def test_an_ipv6_peer_is_its_network_and_memory_is_bounded() -> None:
    attempts = Attempts(Clock(), kept=100)
    for k in range(FREE_ADDRESS):
        attempts.begin(f"n{k}", f"2001:db8::{k:x}")
    assert attempts.wait_s("other", "2001:db8::ffff") > 0
    assert attempts.wait_s("other", "2001:db8:1::1") == 0
    for k in range(1000):
        attempts.begin(f"m{k}", f"10.0.{k // 250}.{k % 250}")
    assert len(attempts._names) == len(attempts._addresses) == 100


def test_an_unknown_role_of_a_later_version_gives_no_right(place: House) -> None:
    with place.service.records.session() as session:
        session.execute(update(User).where(User.name == "vera").values(roles="viewer owner"))
    try:
        assert place.browser("vera").get(SESSION).json()["roles"] == ["viewer"]
    finally:
        with place.service.records.session() as session:
            session.execute(update(User).where(User.name == "vera").values(roles="viewer"))
