"""The audit log on SQLite and PostgreSQL: what was changed, removed or moved is found."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from triage.service.access import audit, fhir, heads, startup
from triage.service.access.audit import Head, record, rows, verify
from triage.service.records import Database
from triage.settings import Settings

UID = {"study_instance_uid": "1.2.3", "address": "10.0.0.1", "images": 3}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upgraded SQLite database, to be copied: the migrations run once."""
    path = tmp_path_factory.mktemp("template") / "triage.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()  # the last one out writes the log of SQLite back into the file
    return path


@pytest.fixture
def lite(template: Path, tmp_path: Path) -> Iterator[Database]:
    """SQLite alone: where what is tested is no business of the database."""
    database = Database(f"sqlite:///{shutil.copy(template, tmp_path / 'lite.db')}")
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    if request.param == "sqlite":
        yield request.getfixturevalue("lite")
        return
    make: Callable[[], str] = request.getfixturevalue("new_database")
    database = Database(make())
    database.upgrade()
    yield database
    database.close()


def fill(database: Database, number: int = 5) -> None:
    with database.session() as session:
        for k in range(number):
            record(session, "study.opened", f"user{k}", f"study{k}", details=UID)


def faults(database: Database, *noted: Head) -> list[str]:
    with database.reading() as session:
        return verify(session, noted).faults


def by_hand(database: Database, *statements: str) -> None:
    """What somebody does who owns the database: the triggers are no hindrance."""
    names = {
        True: ("audit_no_update", "audit_no_delete", "audit_head_grows", "audit_head_stays"),
        False: ("audit_append_only ON audit", "audit_head_grows ON audit_head"),
    }
    with database.engine.begin() as connection:
        for name in names[database.sqlite]:
            connection.execute(text(f"DROP TRIGGER {name}"))
        for statement in statements:
            connection.execute(text(statement))


def test_a_whole_log_verifies(database: Database) -> None:
    assert faults(database) == []
    fill(database)
    assert faults(database) == []
    with database.reading() as session:
        found = list(rows(session))
        assert [row["id"] for row in found] == [1, 2, 3, 4, 5]
        assert found[0]["previous_hash"] == audit.START
        assert [row["id"] for row in rows(session, after=3)] == [4, 5]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody' WHERE id = 2",
        "DELETE FROM audit WHERE id = 5",
        "UPDATE audit_head SET count = 4",
        "UPDATE audit_head SET hash = '0'",
        "DELETE FROM audit_head",
        "TRUNCATE audit",
    ],
)
def test_the_database_itself_refuses(database: Database, statement: str) -> None:
    if database.sqlite and statement.startswith("TRUNCATE"):
        return  # SQLite has no such statement
    fill(database)
    with pytest.raises(DBAPIError, match="append-only"), database.engine.begin() as connection:
        connection.execute(text(statement))
    assert faults(database) == []


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'nobody'",
        "action = 'login'",
        "object = ''",
        "outcome = 'failure'",
        "details = '{}'",
        "hash = previous_hash",
        "previous_hash = hash",
    ],
)
def test_a_changed_row_is_found(lite: Database, change: str) -> None:
    fill(lite)
    by_hand(lite, f"UPDATE audit SET {change} WHERE id = 3")  # noqa: S608
    assert any("row 3" in fault for fault in faults(lite))


def test_a_changed_time_is_found(database: Database) -> None:
    fill(database)
    with database.reading() as session:
        at = list(rows(session))[2]["at"] + timedelta(microseconds=1)
    by_hand(database, f"UPDATE audit SET at = '{at:%Y-%m-%d %H:%M:%S.%f}' WHERE id = 3")  # noqa: S608
    assert faults(database) == ["row 3: changed"]


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_removed_row_is_found_the_last_one_too(database: Database, number: int) -> None:
    fill(database)
    by_hand(database, f"DELETE FROM audit WHERE id = {number}")  # noqa: S608
    assert faults(database)


def test_reordered_rows_are_found(database: Database) -> None:
    fill(database)
    by_hand(
        database,
        "UPDATE audit SET id = 99 WHERE id = 2",
        "UPDATE audit SET id = 2 WHERE id = 3",
        "UPDATE audit SET id = 3 WHERE id = 99",
    )
    assert any("does not follow" in fault for fault in faults(database))


def test_all_rows_removed_are_found(database: Database) -> None:
    fill(database)
    by_hand(database, "DELETE FROM audit")
    assert faults(database) == ["the end: 0 rows where 5 were written"]


def test_a_row_put_in_is_found(database: Database) -> None:
    fill(database)
    by_hand(
        database,
        "INSERT INTO audit (id, at, actor, action, object, outcome, details, previous_hash, hash) "
        "SELECT 6, at, actor, action, object, outcome, details, hash, hash FROM audit WHERE id = 5",
    )
    assert "row 6: changed" in faults(database)


def test_a_log_cut_short_with_its_head_is_found_by_a_noted_head(database: Database) -> None:
    """Whoever sets the head back as well makes a chain that is sound in itself."""
    fill(database)
    with database.reading() as session:
        noted, fourth = audit.head(session), list(rows(session))[3]["hash"]
    by_hand(
        database,
        "DELETE FROM audit WHERE id = 5",
        f"UPDATE audit_head SET count = 4, hash = '{fourth}'",  # noqa: S608
    )
    assert faults(database) == []
    assert faults(database, noted) == ["row 5: was noted and is gone"]
    fill(database, 1)  # another fifth row
    assert faults(database, noted) == ["row 5: not the one that was noted"]


def test_many_writers_make_one_chain(database: Database) -> None:
    threads = [threading.Thread(target=fill, args=(database, 4)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults(database) == []
    with database.reading() as session:
        assert audit.head(session).count == 24


def test_a_transaction_that_is_rolled_back_leaves_no_gap(database: Database) -> None:
    fill(database, 1)
    with pytest.raises(RuntimeError), database.session() as session:
        record(session, "login", "a", "a")
        raise RuntimeError
    fill(database, 1)
    assert faults(database) == []


SCALARS = st.text() | st.integers() | st.floats() | st.booleans() | st.none()


def test_whatever_is_recorded_verifies(lite: Database) -> None:
    @settings(max_examples=40)
    @given(actor=st.text(max_size=20), detail=st.recursive(SCALARS, st.lists, max_leaves=5))
    def recorded(actor: str, detail: Any) -> None:
        with lite.session() as session:
            record(session, "login", actor, actor, details={"x": detail})

    recorded()
    assert faults(lite) == []
    with lite.reading() as session:
        assert audit.head(session).count >= 40


def test_what_makes_no_sense_is_refused(lite: Database) -> None:
    for action, outcome in (("login", "maybe"), ("study.eaten", "success")):
        with pytest.raises(ValueError, match="Expected"), lite.session() as session:
            record(session, action, "a", "a", outcome)


# ---- heads, settings


def test_heads_are_noted_outside_the_database(tmp_path: Path) -> None:
    assert heads.noted(tmp_path) == []
    first, second = Head(1, "a" * 64), Head(12, "b" * 64)
    heads.note(tmp_path, first)
    heads.note(tmp_path, second)
    with (tmp_path / heads.NAME).open("a") as file:
        file.write("nonsense\n")
    assert heads.noted(tmp_path) == [first, second]
    assert (tmp_path / heads.NAME).stat().st_mode & 0o077 == 0


def test_settings_that_differ_from_the_last_start_are_recorded(database: Database) -> None:
    url = "postgresql://me:s3cret@db/triage"
    for values in ({}, {}, {"http_port": 1, "database_url": url}, {"http_port": 2}):
        with database.session() as session:
            startup.started(session, Settings(**values))
    with database.reading() as session:
        changed = [r["details"]["changed"] for r in rows(session) if "changed" in r["details"]]
    assert changed == [
        {"http_port": [None, "1"], "database_url": [None, "postgresql://***@db/triage"]},
        {"http_port": ["1", "2"], "database_url": ["postgresql://***@db/triage", None]},
    ]


# ---- FHIR


def test_every_action_is_an_audit_event(lite: Database) -> None:
    """Against the rules of R4: required elements, and codes of the bound value sets."""
    with lite.session() as session:
        for action in audit.ACTIONS:
            for outcome in audit.OUTCOMES:
                record(session, action, "vera", "x", outcome, {**UID, "changed": {"a": [1, None]}})
    with lite.reading() as session:
        events = [fhir.audit_event(row, "here") for row in rows(session)]
    for event in events:
        assert json.loads(json.dumps(event)) == event
        assert {"type", "recorded", "agent", "source"} <= set(event)
        assert event["action"] in "CRUDE" and event["outcome"] in ("0", "4", "8", "12")
        assert event["recorded"].endswith("+00:00")
        assert event["agent"][0]["requestor"] is True
        assert event["source"]["observer"]
        assert event["entity"][0]["what"]["identifier"]["value"] == "urn:oid:1.2.3"
        assert event["agent"][0]["network"] == {"address": "10.0.0.1", "type": "2"}
        for coding in [event["type"], *event.get("subtype", [])]:
            assert coding["display"] == fhir.DISPLAY[coding["code"]]


def test_audit_events_fit_the_models_of_fhir(lite: Database) -> None:
    models = pytest.importorskip("fhir.resources.R4B.auditevent")
    fill(lite, 2)
    with lite.session() as session:
        record(session, "login", "vera", "vera", "failure", {"address": "::1"})
    with lite.reading() as session:
        for row in rows(session):
            models.AuditEvent.model_validate(fhir.audit_event(row, "here"))
