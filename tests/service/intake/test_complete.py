"""When a study is complete: on a clock of our own, nobody waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from triage.results.report import refused, to_dict
from triage.service.intake.complete import RETRY_S, SERIES_QUIET_S, Completeness
from triage.service.intake.items import Touched
from triage.service.records import Database, analyses, studies
from triage.service.records.models import Series, Study, new_id
from triage.types import Status

QUIET, DEADLINE = 30.0, 600.0
DONE = {"status": "analysed", "priority": "routine", "targets": {}}


class Room:
    """A database with one study, a clock, and what was said to be ready."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = 1000.0
        self.ready: list[tuple[str, int]] = []
        self.refused: list[tuple[str, int]] = []
        self.fail = False
        self.complete = self.started()

    def started(self) -> Completeness:
        """As after a restart of the process."""
        self.complete = Completeness(
            self.database,
            self.on_ready,
            quiet_s=QUIET,
            deadline_s=DEADLINE,
            on_deadline=lambda *what: self.refused.append(what),
            clock=lambda: self.now,
        )
        self.complete.recover()
        return self.complete

    def on_ready(self, study_id: str, images_version: int) -> None:
        if self.fail:
            raise RuntimeError("the queue is not there")
        self.ready.append((study_id, images_version))

    def study(self, **values: object) -> str:
        with self.database.session() as session:
            row = Study(id=new_id(), study_instance_uid=f"1.2.{new_id()}", **values)
            session.add(row)
            session.add(Series(study_id=row.id, series_instance_uid="1", instance_count=0))
            return row.id

    def image(self, study_id: str, **known: bool) -> None:
        """What a commit does to the study."""
        with self.database.session() as session:
            study = studies.get(session, study_id)
            assert study is not None
            study.instance_count += 1
            if study.ready_version >= study.images_version:
                study.images_version += 1
                study.status = Status.RECEIVED
            version, background = study.images_version, study.background
        self.complete.touched([Touched(study_id, version, background=background, **known)])

    def pass_s(self, seconds: float) -> None:
        self.now += seconds
        self.complete.step()

    def status(self, study_id: str) -> tuple[str, str | None]:
        with self.database.reading() as session:
            study = studies.get(session, study_id)
            assert study is not None
            return study.status, study.reason

    def analysed(self, study_id: str, version: int) -> None:
        with self.database.session() as session:
            analysis = analyses.begin(session, study_id, version, "worker")
            assert analysis is not None
            analyses.finish(session, analysis.id, DONE)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    database = Database(f"sqlite:///{tmp_path / 'triage.db'}")
    database.upgrade()
    yield Room(database)
    database.close()


def test_a_study_is_complete_after_the_quiet_time(room: Room) -> None:
    key = room.study()
    room.image(key)
    room.pass_s(QUIET - 1)
    room.image(key)  # not quiet
    room.pass_s(QUIET - 1)
    assert room.ready == []
    room.pass_s(1)
    assert room.ready == [(key, 1)]
    room.pass_s(10 * QUIET)
    assert room.ready == [(key, 1)]  # once


def test_a_late_image_is_a_new_version(room: Room) -> None:
    key = room.study()
    room.image(key)
    room.pass_s(QUIET)
    room.analysed(key, 1)
    room.image(key)
    assert room.status(key)[0] == "received"
    room.pass_s(QUIET)
    assert room.ready == [(key, 1), (key, 2)]


def test_announced_images_need_no_quiet_time(room: Room) -> None:
    one, other = room.study(), room.study()
    room.image(one, all_there=True)
    room.image(other, series_there=True)
    room.pass_s(0)
    assert room.ready == [(one, 1)]
    room.pass_s(SERIES_QUIET_S)
    assert room.ready == [(one, 1), (other, 1)]


def test_a_whole_upload_is_complete_at_once(room: Room) -> None:
    key = room.study()
    room.image(key)
    room.complete.complete([key])
    room.pass_s(0)
    assert room.ready == [(key, 1)]


def test_readiness_is_not_lost_over_a_restart(room: Room) -> None:
    quiet, ready, done, empty = (room.study() for _ in range(4))
    for key in (quiet, ready, done):
        room.image(key)
    for key in (ready, done):
        with room.database.session() as session:
            studies.declare_ready(session, key, 1)
    room.analysed(done, 1)
    room.started()
    room.pass_s(0)
    assert room.ready == [(ready, 1)]
    room.pass_s(QUIET)
    assert room.ready == [(ready, 1), (quiet, 1)]
    assert empty not in dict(room.ready)


def test_a_callback_that_fails_is_called_again(room: Room) -> None:
    key = room.study()
    room.image(key)
    room.fail = True
    room.pass_s(QUIET)
    assert room.ready == []
    room.fail = False
    room.pass_s(RETRY_S)
    assert room.ready == [(key, 1)]


def test_after_the_deadline_nothing_is_silently_pending(room: Room) -> None:
    trickling, waiting, done, old = (
        room.study(),
        room.study(),
        room.study(),
        room.study(background=True),
    )
    for key in (trickling, waiting, done, old):
        room.image(key)
    room.pass_s(QUIET)
    room.analysed(done, 1)
    for _ in range(30):  # a slice now and then, for ever
        room.image(trickling)
        room.pass_s(QUIET - 5)
    assert room.status(trickling) == ("not_analysed", "TIMED_OUT")
    assert room.status(waiting) == ("not_analysed", "TIMED_OUT")
    assert room.status(done) == ("analysed", None)
    assert room.status(old)[0] == "received"  # retrospective studies may wait
    assert sorted(key for key, _ in room.refused) == sorted([trickling, waiting])
    room.analysed(waiting, 1)  # the result comes after all
    assert room.status(waiting) == ("analysed", None)


def test_every_study_has_one_current_answer_after_its_deadline(room: Room) -> None:
    key = room.study()
    room.image(key)
    room.pass_s(DEADLINE + QUIET)
    with room.database.reading() as session:
        (analysis,) = analyses.of_study(session, key)
        assert analysis.current
        assert analysis.report is not None
        expected = to_dict(refused("TIMED_OUT"))["reason"]["code"]
        assert analysis.report["reason"]["code"] == expected


def test_a_deleted_study_is_forgotten(room: Room) -> None:
    key = room.study()
    room.image(key)
    with room.database.session() as session:
        studies.delete(session, key)
    room.pass_s(DEADLINE)
    assert room.ready == room.refused == []


def test_the_thread_does_the_same(tmp_path: Path) -> None:
    import threading

    database = Database(f"sqlite:///{tmp_path / 'triage.db'}")
    database.upgrade()
    called = threading.Event()
    complete = Completeness(database, lambda *what: called.set(), quiet_s=0.01)
    complete.start()
    with database.session() as session:
        session.add(Study(id="a" * 32, study_instance_uid="1", instance_count=1))
    complete.touched([Touched("a" * 32, 1)])
    assert called.wait(10)
    complete.stop()
    assert not complete.alive
    database.close()
