"""Cohorts: retrospective studies submitted together, a folder each."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from triage.service.records.models import Analysis, Cohort, CohortStudy, Study, new_id, now
from triage.types import Status


def create(session: Session, name: str, folders: Sequence[str]) -> Cohort:
    """A cohort of these folders (absolute paths), each once."""
    cohort = Cohort(id=new_id(), name=name)
    session.add(cohort)
    session.flush()
    add(session, cohort.id, folders)
    return cohort


def add(session: Session, cohort_id: str, folders: Sequence[str]) -> int:
    """Adds the folders that are not there yet; returns how many."""
    there = set(
        session.scalars(select(CohortStudy.folder).where(CohortStudy.cohort_id == cohort_id))
    )
    new = [folder for folder in dict.fromkeys(folders) if folder not in there]
    session.add_all(CohortStudy(id=new_id(), cohort_id=cohort_id, folder=f) for f in new)
    session.flush()
    return len(new)


def get(session: Session, cohort_id: str) -> Cohort | None:
    return session.get(Cohort, cohort_id)


def newest(session: Session, limit: int = 100) -> list[Cohort]:
    return list(session.scalars(select(Cohort).order_by(Cohort.created_at.desc()).limit(limit)))


def by_name(session: Session, name: str) -> Cohort | None:
    """The newest cohort of that name."""
    rows = select(Cohort).where(Cohort.name == name).order_by(Cohort.created_at.desc())
    return session.scalar(rows.limit(1))


def waiting(session: Session, cohort_id: str, limit: int = 1000) -> list[CohortStudy]:
    """Folders that were neither taken nor refused yet."""
    rows = select(CohortStudy).where(
        CohortStudy.cohort_id == cohort_id,
        CohortStudy.study_id.is_(None),
        CohortStudy.reason.is_(None),
    )
    return list(session.scalars(rows.order_by(CohortStudy.folder).limit(limit)))


def taken(session: Session, cohort_study_id: str, study_id: str) -> None:
    """The folder's images are stored as this study."""
    session.execute(
        update(CohortStudy).where(CohortStudy.id == cohort_study_id).values(study_id=study_id)
    )


def refused(session: Session, cohort_study_id: str, reason: str) -> None:
    """The folder cannot be taken: a code of `reasons.REASONS`."""
    session.execute(
        update(CohortStudy).where(CohortStudy.id == cohort_study_id).values(reason=reason)
    )


def cancel(session: Session, cohort_id: str) -> None:
    session.execute(
        update(Cohort)
        .where(Cohort.id == cohort_id, Cohort.cancelled_at.is_(None))
        .values(cancelled_at=now())
    )


def progress(session: Session, cohort_id: str) -> dict[str, int]:
    """Number of its folders: total, waiting, refused, and of its studies in each status."""
    mine = CohortStudy.cohort_id == cohort_id
    total = session.scalar(select(func.count()).select_from(CohortStudy).where(mine)) or 0
    refusals = select(func.count()).select_from(CohortStudy)
    refusals = refusals.where(mine, CohortStudy.reason.is_not(None))
    rows = session.execute(
        select(Study.status, func.count())
        .join(CohortStudy, CohortStudy.study_id == Study.id)
        .where(mine)
        .group_by(Study.status)
    )
    by_status = {Status(status).value: int(number) for status, number in rows}
    counts = {status.value: by_status.get(status.value, 0) for status in Status}
    refusal_count = session.scalar(refusals) or 0
    waiting_count = total - refusal_count - sum(counts.values())
    return {"total": total, "waiting": waiting_count, "refused": refusal_count, **counts}


def results(
    session: Session, cohort_id: str
) -> list[tuple[CohortStudy, Study | None, Analysis | None]]:
    """Each folder with its study and current analysis, for the table of results."""
    rows = session.execute(
        select(CohortStudy, Study, Analysis)
        .outerjoin(Study, CohortStudy.study_id == Study.id)
        .outerjoin(Analysis, (Analysis.study_id == Study.id) & Analysis.current)
        .where(CohortStudy.cohort_id == cohort_id)
        .order_by(CohortStudy.folder)
    )
    return [(entry, study, analysis) for entry, study, analysis in rows]


def add_taken(session: Session, cohort_id: str, folder: str, study_id: str) -> None:
    """One more study that was found in a folder or zip of several."""
    there = select(CohortStudy.id).where(
        CohortStudy.cohort_id == cohort_id, CohortStudy.folder == folder
    )
    if session.scalar(there) is None:
        session.add(CohortStudy(id=new_id(), cohort_id=cohort_id, folder=folder, study_id=study_id))
