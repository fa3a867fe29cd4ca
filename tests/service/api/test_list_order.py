"""The order of the list: nothing unanalysed sinks below an analysed study without suspicion."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from triage.service.records import Database, lists, studies
from triage.service.records.models import Study
from triage.types import Priority, Status

AT = datetime(2026, 11, 21, tzinfo=UTC)
ANALYSED = st.tuples(st.just(Status.ANALYSED), st.sampled_from([p.value for p in Priority]))
OTHERS = st.tuples(
    st.sampled_from([Status.RECEIVED, Status.ANALYSING, Status.NOT_ANALYSED]),
    st.sampled_from([None, *(p.value for p in Priority)]),
)


def quiet(study: Study) -> bool:
    return study.status == Status.ANALYSED and study.priority == Priority.ROUTINE.value


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database.at_home(tmp_path_factory.mktemp("order"))
    database.upgrade()
    yield database
    database.close()


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ANALYSED | OTHERS, min_size=1, max_size=12))
def test_what_is_not_analysed_stands_above_every_study_without_suspicion(
    database: Database, rows: list[tuple[Status, str | None]]
) -> None:
    with database.session() as session:
        session.execute(delete(Study))
        for number, (status, priority) in enumerate(rows):
            at = AT + timedelta(hours=number)  # the newest may be the quiet one
            session.add(
                Study(
                    study_instance_uid=str(number),
                    status=status,
                    priority=priority,
                    received_at=at,
                    last_instance_at=at,
                )
            )
    with database.reading() as session:
        found = lists.by_urgency(session, studies.Query())
    assert len(found) == len(rows)
    first_quiet = next((i for i, s in enumerate(found) if quiet(s)), len(found))
    assert all(quiet(s) for s in found[first_quiet:])
    suspected = [i for i, s in enumerate(found) if s.priority == Priority.STAT.value]
    assert suspected == list(range(len(suspected)))
