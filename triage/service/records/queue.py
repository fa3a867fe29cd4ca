"""Which studies wait for an analysis, and which workers live: what the workflow reads and writes.

Like everything here, functions take a session of `Database`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from triage.service.records import analyses
from triage.service.records.models import Analysis, Instance, Study, Worker, now
from triage.types import Status


@dataclass(frozen=True, slots=True)
class Waiting:
    """A study whose images are complete and that no worker has begun to analyse."""

    study_id: str
    images_version: int
    round: int


def waiting(session: Session, stat: bool, background: bool, limit: int) -> list[Waiting]:
    """The oldest waiting studies of one class, those that waited longest first."""
    rows = select(Study.id, Study.ready_version, Study.queue_round)
    rows = rows.where(*_waits(), *_class(stat, background))
    rows = rows.order_by(Study.received_at, Study.id).limit(limit)
    return [Waiting(*row) for row in session.execute(rows)]


def count_waiting(session: Session, stat: bool, background: bool) -> int:
    rows = select(func.count()).select_from(Study).where(*_waits(), *_class(stat, background))
    return session.scalar(rows) or 0


def count_unfinished(session: Session) -> int:
    """Retrospective studies that are stored and not analysed yet."""
    rows = select(func.count()).select_from(Study)
    rows = rows.where(Study.background, Study.status.in_([Status.RECEIVED, Status.ANALYSING]))
    return session.scalar(rows) or 0


def _waits() -> list[ColumnElement[bool]]:
    begun = select(Analysis.id).where(
        Analysis.study_id == Study.id,
        Analysis.images_version == Study.ready_version,
        Analysis.round >= Study.queue_round,
        Analysis.executor != "",  # else it is a refusal by the deadline: no worker saw it
    )
    return [
        Study.status.in_([Status.RECEIVED, Status.NOT_ANALYSED]),  # the index makes it quick
        Study.ready_version > 0,
        Study.ready_version == Study.images_version,
        ~begun.exists(),
    ]


def _class(stat: bool, background: bool) -> list[ColumnElement[bool]]:
    if stat:
        return [Study.order_priority == "stat"]
    return [Study.order_priority != "stat", Study.background.is_(background)]


def ask_again(session: Session, study_id: str) -> bool:
    """Queue the study once more with the images that it has; False if it is not to be had.

    Its old result stays the current one until the new one comes.
    """
    result = session.execute(
        update(Study)
        .where(Study.id == study_id, Study.instance_count > 0)
        .values(
            queue_round=Study.queue_round + 1,
            status=Status.RECEIVED,
            cancelled_version=0,
            ready_version=Study.images_version,
        )
    )
    return bool(result.rowcount)  # type: ignore[attr-defined]


def next_round(session: Session, study_id: str, round_: int) -> bool:
    """The workflow of `round_` came to nothing: the next one may begin. Once, whoever asks."""
    result = session.execute(
        update(Study)
        .where(Study.id == study_id, Study.queue_round == round_)
        .values(queue_round=round_ + 1, status=Status.RECEIVED)
    )
    return bool(result.rowcount)  # type: ignore[attr-defined]


def request_cancel(session: Session, study_id: str) -> int:
    """No analysis of the images that are there now; returns their version, 0 without study."""
    study = session.get(Study, study_id, with_for_update=True)
    if study is None:
        return 0
    study.cancelled_version = study.images_version
    return study.images_version


def is_cancelled(session: Session, analysis_id: str) -> bool:
    """Whether the analysis was cancelled, or its study is gone."""
    row = session.execute(
        select(Study.cancelled_version, Analysis.images_version)
        .join(Analysis, Analysis.study_id == Study.id)
        .where(Analysis.id == analysis_id)
    ).first()
    return row is None or row[0] >= row[1]


def files_of(session: Session, study_id: str, images_version: int) -> list[str]:
    """Paths below the images folder of what this images version holds."""
    rows = select(Instance.path).where(
        Instance.study_id == study_id, Instance.images_version <= images_version
    )
    return list(session.scalars(rows.order_by(Instance.received_at, Instance.id)))


def claim(
    session: Session, study_id: str, images_version: int, round_: int, executor: str
) -> str | None:
    """The id of the analysis of this images version, made if need be. Idempotent.

    None if there is nothing to do: the study is gone, newer images are complete, or a worker has
    answered in this round already.
    """
    study = session.get(Study, study_id, with_for_update=True)
    if study is None or study.ready_version > images_version:
        return None
    answered = select(Analysis.id).where(
        Analysis.study_id == study_id,
        Analysis.images_version == images_version,
        Analysis.round >= round_,
        Analysis.executor != "",
        Analysis.finished_at.is_not(None),
    )
    if session.scalar(answered.limit(1)) is not None:
        return None
    analysis = analyses.begin(session, study_id, images_version, executor, again=True)
    if analysis is None:
        return None
    analysis.round = max(analysis.round, round_)
    session.flush()
    return analysis.id


def started(session: Session, analysis_id: str, executor: str) -> Analysis | None:
    """An executor begins to compute; one that takes it over, or begins anew, is an attempt more.

    None if the analysis is gone or finished.
    """
    analysis = session.get(Analysis, analysis_id, with_for_update=True)
    if analysis is None or analysis.finished_at is not None:
        return None
    if analysis.stage:
        analysis.attempts += 1
    analysis.executor, analysis.stage, analysis.fraction = executor, "starting", 0.0
    return analysis


# ---- workers


@dataclass(frozen=True, slots=True)
class Beat:
    """A worker's pulse: `number` grows while it lives, and is STOPPED after a clean stop."""

    executor: str
    boot: str
    number: int


STOPPED = -1


def join(session: Session, executor: str, boot: str, host: str, pid: int) -> None:
    """A worker process starts; `boot` tells it from an earlier one of the same name."""
    worker = session.get(Worker, executor, with_for_update=True)
    if worker is None:
        worker = Worker(executor=executor)
        session.add(worker)
    worker.boot, worker.host, worker.pid = boot, host, pid
    worker.beat, worker.started_at, worker.heartbeat_at = 1, now(), now()
    session.flush()


def pulse(session: Session, executor: str, boot: str) -> bool:
    """One more beat; False if another process took the name over, or the row is gone."""
    result = session.execute(
        update(Worker)
        .where(Worker.executor == executor, Worker.boot == boot)
        .values(beat=Worker.beat + 1, heartbeat_at=now())
    )
    return bool(result.rowcount)  # type: ignore[attr-defined]


def leave(session: Session, executor: str, boot: str) -> None:
    """A clean stop: what it left may be taken at once."""
    session.execute(
        update(Worker)
        .where(Worker.executor == executor, Worker.boot == boot)
        .values(beat=STOPPED, heartbeat_at=now())
    )


def beats(session: Session) -> list[Beat]:
    rows = session.execute(select(Worker.executor, Worker.boot, Worker.beat))
    return [Beat(*row) for row in rows]


def forget(session: Session, executors: Sequence[str]) -> None:
    session.execute(delete(Worker).where(Worker.executor.in_(list(executors))))
