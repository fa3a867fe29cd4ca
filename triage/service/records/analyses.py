"""Analyses, findings and workers: what the workflow writes and the API reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, defer

from triage.service.records.models import Analysis, Finding, Study, Worker, new_id, now
from triage.service.workflow.partial import as_partial
from triage.types import Priority, Status, Verdict


def begin(
    session: Session, study_id: str, images_version: int, executor: str, again: bool = False
) -> Analysis | None:
    """The analysis of this images version: a new one, or the unfinished one once more.

    Whoever resumes another executor's analysis gets the same row with `attempts` + 1. None if the
    study was deleted, or if this images version has its answer already; `again` asks for another
    one all the same, and one that ended not_analysed may always be tried again.
    """
    study = session.get(Study, study_id, with_for_update=True)
    if study is None:
        return None
    mine = select(Analysis).where(
        Analysis.study_id == study_id, Analysis.images_version == images_version
    )
    found = session.scalar(mine.where(Analysis.finished_at.is_(None)))
    if found is not None:
        found.attempts += 1
        found.executor, found.stage, found.fraction = executor, "", 0.0
    else:
        answered = mine.where(Analysis.current, Analysis.status != Status.NOT_ANALYSED)
        if not again and session.scalar(answered) is not None:
            return None
        found = _new(session, study_id, images_version, executor)
        session.add(found)
    if images_version == study.images_version:
        study.status = Status.ANALYSING
    session.flush()
    return found


def _new(session: Session, study_id: str, images_version: int, executor: str) -> Analysis:
    last = session.scalar(select(func.max(Analysis.version)).where(Analysis.study_id == study_id))
    return Analysis(
        id=new_id(),
        study_id=study_id,
        version=(last or 0) + 1,
        images_version=images_version,
        executor=executor,
        current=False,
        started_at=now(),
    )


def progress(session: Session, analysis_id: str, stage: str, fraction: float) -> None:
    session.execute(
        update(Analysis)
        .where(Analysis.id == analysis_id, Analysis.finished_at.is_(None))
        .values(stage=stage, fraction=fraction)
    )


def finish(
    session: Session, analysis_id: str, report: dict[str, Any], folder: str = ""
) -> Analysis | None:
    """The analysis ended with this report.json; returns it, or None if it is gone.

    It becomes the current one, unless an analysis of a newer images version is. The study takes its
    status only if no image arrived since: otherwise a new analysis is on its way. Idempotent.
    """
    analysis = session.get(Analysis, analysis_id)
    if analysis is None:
        return None
    study = session.get(Study, analysis.study_id, with_for_update=True)
    if study is not None and analysis.finished_at is None:
        _end(session, study, analysis, report, folder)
    return analysis


def refuse(
    session: Session, study_id: str, images_version: int, report: dict[str, Any]
) -> Analysis | None:
    """An end without analysis (the deadline): `report` is that of `results.report.refused`.

    An unfinished analysis of this images version stays, and its result, should it still come,
    takes the place of this one. None if there is no such study.
    """
    study = session.get(Study, study_id, with_for_update=True)
    if study is None:
        return None
    analysis = _new(session, study_id, images_version, executor="")
    _end(session, study, analysis, report, folder="")
    return analysis


def refuse_upload(session: Session, study_instance_uid: str, report: dict[str, Any]) -> Study:
    """A study for an upload that held no image at all, so that it shows and does not vanish.

    `report` is that of `results.report.refused`.
    """
    study = Study(
        id=new_id(), study_instance_uid=study_instance_uid, images_version=1, ready_version=1
    )
    session.add(study)
    session.flush()
    refuse(session, study.id, 1, report)
    return study


def _end(
    session: Session, study: Study, analysis: Analysis, report: dict[str, Any], folder: str
) -> None:
    reason = report.get("reason") or {}
    bundle = report.get("bundle") or {}
    analysis.status = Status(report["status"])
    analysis.reason = reason.get("code")
    analysis.priority = report.get("priority")
    analysis.report, analysis.folder = report, folder
    analysis.bundle_name = bundle.get("name", "")
    analysis.bundle_version = bundle.get("version", "")
    analysis.bundle_sha256 = bundle.get("sha256", "")
    analysis.stage, analysis.fraction, analysis.finished_at = "done", 1.0, now()
    session.add(analysis)
    session.flush()
    session.add_all(_findings(analysis.id, report))
    _make_current(session, study, analysis)
    session.flush()


def _findings(analysis_id: str, report: dict[str, Any]) -> list[Finding]:
    return [
        Finding(
            analysis_id=analysis_id,
            target=name,
            verdict=found["verdict"],
            score=found.get("probability"),
            flagged=found["verdict"] == Verdict.SUSPECTED,
            reason=found.get("reason"),
            side=found.get("side"),
            grade=found.get("grade"),
            series_instance_uid=found.get("series_instance_uid"),
        )
        for name, found in (report.get("targets") or {}).items()
    ]


def _make_current(session: Session, study: Study, analysis: Analysis) -> None:
    before = current(session, study.id)
    if before is not None and before.images_version > analysis.images_version:
        return
    failed = analysis.status == Status.NOT_ANALYSED
    if before is not None and failed and _answers(before, analysis.images_version):
        if study.images_version == before.images_version:
            study.status = before.status  # asked again, and it failed: the answer stays
        return
    suspected = before is not None and _suspects(before)
    if before is not None:
        before.current = False
        session.flush()  # the index allows no second one, not even for a moment
    analysis.current = True
    if analysis.images_version == study.images_version:
        study.status = analysis.status
        study.reason = analysis.reason
        study.reason_detail = (analysis.report or {}).get("reason", {}).get("message", "")
        study.finished_at = analysis.finished_at
    study.priority = analysis.priority or Priority.URGENT.value
    if failed and suspected:  # that it could not be judged anew takes no suspicion back
        study.priority = Priority.STAT.value
    if _suspects(analysis) and study.flagged_at is None:
        study.flagged_at = analysis.finished_at


def _answers(analysis: Analysis, images_version: int) -> bool:
    return analysis.images_version == images_version and analysis.status != Status.NOT_ANALYSED


def _suspects(analysis: Analysis) -> bool:
    return any(found["verdict"] == Verdict.SUSPECTED for found in _targets(analysis))


def reopened(session: Session, study_id: str) -> None:
    """Images came after an answer: until the next one, only a suspicion is told of the old one."""
    analysis = current(session, study_id)
    if analysis is None or not analysis.report or not _targets(analysis):
        return
    analysis.report = as_partial(analysis.report)
    analysis.priority = analysis.report["priority"]
    session.execute(delete(Finding).where(Finding.analysis_id == analysis.id))
    session.add_all(_findings(analysis.id, analysis.report))
    session.execute(update(Study).where(Study.id == study_id).values(priority=analysis.priority))
    session.flush()


def _targets(analysis: Analysis) -> list[dict[str, Any]]:
    return list(((analysis.report or {}).get("targets") or {}).values())


def get(session: Session, analysis_id: str) -> Analysis | None:
    return session.get(Analysis, analysis_id)


def current(session: Session, study_id: str) -> Analysis | None:
    """The one that counts; None while the first is not finished."""
    return session.scalar(select(Analysis).where(Analysis.study_id == study_id, Analysis.current))


def running(session: Session, study_id: str) -> Analysis | None:
    """The newest analysis that is under way."""
    rows = select(Analysis).where(Analysis.study_id == study_id, Analysis.finished_at.is_(None))
    return session.scalar(rows.order_by(Analysis.version.desc()).limit(1))


def of_study(session: Session, study_id: str) -> list[Analysis]:
    """All versions, oldest first."""
    rows = select(Analysis).where(Analysis.study_id == study_id)
    return list(session.scalars(rows.order_by(Analysis.version)))


def of_studies(
    session: Session, study_ids: Sequence[str], reports: bool = False
) -> dict[str, dict[str, Analysis]]:
    """For a list: study id -> {"current": ..., "running": ...}, each where there is one.

    Without `reports` the report of each, tens of kilobytes, is read only where it is asked for.
    """
    rows = select(Analysis).where(
        Analysis.study_id.in_(list(study_ids)),
        Analysis.current | Analysis.finished_at.is_(None),
    )
    if not reports:
        rows = rows.options(defer(Analysis.report))
    found: dict[str, dict[str, Analysis]] = {study_id: {} for study_id in study_ids}
    for analysis in session.scalars(rows.order_by(Analysis.version)):
        found[analysis.study_id]["current" if analysis.current else "running"] = analysis
    return found


def findings(session: Session, analysis_ids: Sequence[str]) -> dict[str, list[Finding]]:
    """analysis id -> its findings by target."""
    found: dict[str, list[Finding]] = {analysis_id: [] for analysis_id in analysis_ids}
    rows = select(Finding).where(Finding.analysis_id.in_(list(analysis_ids)))
    for finding in session.scalars(rows.order_by(Finding.target)):
        found[finding.analysis_id].append(finding)
    return found


def unfinished(session: Session, executor: str | None = None) -> list[Analysis]:
    """Analyses under way: all, or those of one executor."""
    rows = select(Analysis).where(Analysis.finished_at.is_(None))
    if executor is not None:
        rows = rows.where(Analysis.executor == executor)
    return list(session.scalars(rows.order_by(Analysis.started_at)))


# ---- workers


def beat(session: Session, executor: str, host: str = "", pid: int = 0) -> None:
    """The executor lives; the first beat of a process (another pid) is its start."""
    worker = session.get(Worker, executor)
    if worker is None:
        session.add(Worker(executor=executor, host=host, pid=pid))
        session.flush()
        return
    if worker.pid != pid:
        worker.host, worker.pid, worker.started_at = host, pid, now()
    worker.heartbeat_at = now()


def workers(session: Session) -> list[Worker]:
    return list(session.scalars(select(Worker).order_by(Worker.executor)))


def silent(session: Session, seconds: float, at: datetime | None = None) -> list[Worker]:
    """Workers whose last heartbeat is older than `seconds`."""
    limit = (at or now()) - timedelta(seconds=seconds)
    return list(session.scalars(select(Worker).where(Worker.heartbeat_at < limit)))


def forget_worker(session: Session, executor: str) -> None:
    session.execute(delete(Worker).where(Worker.executor == executor))
