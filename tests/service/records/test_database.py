"""Schema and transactions, on SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from triage.results.report import refused, to_dict
from triage.service.records import Database, DatabaseBusyError, analyses, cohorts, studies
from triage.service.records.models import Analysis, Base, Study, new_id
from triage.types import Status


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def upgraded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path_factory.mktemp('records') / 'triage.db'}"
    if request.param == "postgresql":
        make: Callable[[], str] = request.getfixturevalue("new_database")
        url = make()
    database = Database(url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def database(upgraded: Database) -> Database:
    """An empty one."""
    with upgraded.engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    return upgraded


def a_study(database: Database, **values: object) -> str:
    with database.session() as session:
        row = Study(study_instance_uid=f"1.2.{new_id()}", instance_count=1, **values)
        session.add(row)
        session.flush()
        return row.id


NOT_CT = to_dict(refused("NOT_CT"))
SUSPECTED = {
    "status": "analysed",
    "priority": "stat",
    "targets": {"liver": {"verdict": "suspected", "probability": 0.8}},
    "bundle": {"name": "reference", "version": "1", "sha256": "00"},
}
QUIET = {
    "status": "analysed",
    "priority": "routine",
    "targets": {"liver": {"verdict": "no_finding", "probability": 0.1}},
}


def test_models_and_migrations_agree(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_many_processes_may_upgrade_at_once(database: Database) -> None:
    errors: list[BaseException] = []

    def upgrade() -> None:
        try:
            Database(database.url.render_as_string(hide_password=False)).upgrade()
        except BaseException as error:
            errors.append(error)

    with database.engine.begin() as connection:
        Base.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert database.check() == "ok"


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    key = a_study(database)
    with database.reading() as session:
        study = studies.get(session, key)
        assert study is not None
        assert study.received_at.tzinfo is UTC
        assert abs((datetime.now(UTC) - study.received_at).total_seconds()) < 60
    with pytest.raises(Exception, match="zone"), database.session() as session:
        session.add(Study(study_instance_uid="1", received_at=datetime(2026, 1, 1)))


def test_the_database_itself_forbids_a_second_current_analysis(database: Database) -> None:
    key = a_study(database)
    with pytest.raises(IntegrityError), database.session() as session:
        for version in (1, 2):
            session.add(
                Analysis(
                    study_id=key,
                    version=version,
                    images_version=1,
                    current=True,
                    finished_at=datetime.now(UTC),
                )
            )


def test_a_newer_analysis_takes_the_place_of_the_current_one(database: Database) -> None:
    key = a_study(database)
    with database.session() as session:
        first = analyses.begin(session, key, 1, "a")
        assert first is not None
        analyses.finish(session, first.id, SUSPECTED)
    with database.session() as session:
        assert analyses.begin(session, key, 1, "a") is None  # it has its answer
        again = analyses.begin(session, key, 1, "a", again=True)
        assert again is not None
        analyses.finish(session, again.id, QUIET)
    with database.reading() as session:
        study = studies.get(session, key)
        now = analyses.current(session, key)
        assert study is not None
        assert now is not None
        assert (now.version, study.priority, study.status) == (2, "routine", Status.ANALYSED)
        assert study.flagged_at is not None  # the first flag is not forgotten
        assert [a.current for a in analyses.of_study(session, key)] == [False, True]
        assert analyses.findings(session, [now.id])[now.id][0].verdict == "no_finding"


def test_an_analysis_of_old_images_does_not_end_the_study(database: Database) -> None:
    key = a_study(database)
    with database.session() as session:
        old = analyses.begin(session, key, 1, "a")
        assert old is not None
    with database.session() as session:
        study = studies.get(session, key)
        assert study is not None
        study.images_version, study.status = 2, Status.RECEIVED
    with database.session() as session:
        analyses.finish(session, old.id, QUIET)
    with database.session() as session:
        study = studies.get(session, key)
        assert study is not None
        assert study.status is Status.RECEIVED or study.status == "received"
        assert [s.id for s in studies.without_analysis(session)] == [key]
        new = analyses.begin(session, key, 2, "a")
        assert new is not None
        analyses.finish(session, new.id, SUSPECTED)
        analyses.finish(session, new.id, QUIET)  # a step that ran twice
    with database.session() as session:
        late = analyses.begin(session, key, 1, "a")  # an old one, resumed late
        if late is not None:
            analyses.finish(session, late.id, QUIET)
        current = analyses.current(session, key)
        assert current is not None
        assert current.images_version == 2
        assert studies.get(session, key).priority == "stat"  # type: ignore[union-attr]


def test_a_refusal_gives_way_to_the_result_that_comes_after_all(database: Database) -> None:
    key = a_study(database)
    with database.session() as session:
        running = analyses.begin(session, key, 1, "a")
        assert running is not None
        timed_out = analyses.refuse(session, key, 1, to_dict(refused("TIMED_OUT")))
        assert timed_out is not None
        assert studies.get(session, key).reason == "TIMED_OUT"  # type: ignore[union-attr]
        analyses.finish(session, running.id, SUSPECTED)
    with database.reading() as session:
        study = studies.get(session, key)
        assert study is not None
        assert (study.status, study.reason, study.priority) == ("analysed", None, "stat")


def test_a_resumed_analysis_is_the_same_one(database: Database) -> None:
    key = a_study(database)
    with database.session() as session:
        first = analyses.begin(session, key, 1, "dead")
        second = analyses.begin(session, key, 1, "alive")
        assert first is not None
        assert second is not None
        assert (second.id, second.attempts, second.executor) == (first.id, 2, "alive")


def test_an_upload_without_images_is_a_visible_refusal(database: Database) -> None:
    with database.session() as session:
        study = analyses.refuse_upload(session, "2.25.1", NOT_CT)
    with database.reading() as session:
        assert studies.get(session, study.id).status == "not_analysed"  # type: ignore[union-attr]
        assert studies.without_analysis(session) == []


def test_deleting_a_study_leaves_no_row(database: Database) -> None:
    key = a_study(database)
    with database.session() as session:
        analysis = analyses.begin(session, key, 1, "a")
        assert analysis is not None
        analyses.finish(session, analysis.id, SUSPECTED)
    with database.session() as session:
        assert studies.delete(session, key)
        assert not studies.delete(session, key)
    with database.reading() as session:
        for table in ("studies", "analyses", "findings"):
            assert session.scalar(text(f"SELECT count(*) FROM {table}")) == 0  # noqa: S608


def test_searching_and_counting(database: Database) -> None:
    a_study(database, patient_name="O'Hara^50%", status=Status.ANALYSED)
    a_study(database, patient_name="TEST", background=True)
    with database.reading() as session:
        query = studies.Query(search="o'hara^50%")
        assert [s.patient_name for s in studies.newest(session, query)] == ["O'Hara^50%"]
        assert studies.count(session, studies.Query(background=None)) == 2
        assert studies.count(session, studies.Query(search="50_")) == 0
        assert studies.count_by_status(session)[Status.ANALYSED] == 1


def test_a_cohort_counts_its_folders(database: Database) -> None:
    key = a_study(database, background=True)
    with database.session() as session:
        cohort = cohorts.create(session, "old", ["/a", "/b", "/c", "/a"])
        first, second, _ = cohorts.waiting(session, cohort.id)
        cohorts.taken(session, first.id, key)
        cohorts.refused(session, second.id, "UNREADABLE")
    with database.reading() as session:
        counts = cohorts.progress(session, cohort.id)
        assert (counts["total"], counts["waiting"], counts["refused"]) == (3, 1, 1)
        assert counts["received"] == 1
        assert [s and s.id for _, s, _ in cohorts.results(session, cohort.id)] == [key, None, None]


def test_counters_grow(database: Database) -> None:
    for _ in range(2):
        with database.session() as session:
            studies.add_to_counter(session, "intake_duplicates", 2)
    with database.reading() as session:
        assert studies.counters(session) == {"intake_duplicates": 4}


def test_a_locked_database_is_said_to_be_busy(tmp_path: Path) -> None:
    path = tmp_path / "triage.db"
    database = Database(f"sqlite:///{path}", busy_s=0.05)
    database.upgrade()
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError), database.session():
        pass
    with database.reading() as session:  # readers are not kept waiting
        assert studies.count(session) == 0
    other.rollback()
    a_study(database)
