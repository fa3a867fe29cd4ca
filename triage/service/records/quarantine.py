"""What was taken but belongs to no study: kept apart, counted, and shown until somebody looks."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from triage.service.records.models import Quarantined

# Reason -> what it means.
REASONS: dict[str, str] = {
    "OTHER_BYTES": "An image with this SOPInstanceUID and other content is stored already.",
    "UNREADABLE": "The header cannot be read as DICOM.",
    "MISMATCH": "The data set is not the object that the sender announced.",
    "TOO_LARGE": "The file is larger than one image may be.",
}


def find(session: Session, sop_instance_uid: str, sha256: str) -> Quarantined | None:
    return session.scalar(
        select(Quarantined).where(
            Quarantined.sop_instance_uid == sop_instance_uid, Quarantined.sha256 == sha256
        )
    )


def came_again(session: Session, quarantine_id: str) -> None:
    session.execute(
        update(Quarantined)
        .where(Quarantined.id == quarantine_id)
        .values(times=Quarantined.times + 1)
    )


def newest(session: Session, limit: int = 100, study_id: str | None = None) -> list[Quarantined]:
    rows = select(Quarantined)
    if study_id is not None:
        rows = rows.where(Quarantined.study_id == study_id)
    rows = rows.order_by(Quarantined.received_at.desc(), Quarantined.id)
    return list(session.scalars(rows.limit(limit)))


def count_by_reason(session: Session) -> dict[str, int]:
    rows = session.execute(select(Quarantined.reason, func.count()).group_by(Quarantined.reason))
    found = {str(reason): int(number) for reason, number in rows}
    return {reason: found.get(reason, 0) for reason in REASONS}


def count_of_study(session: Session, study_id: str) -> int:
    rows = select(func.count()).select_from(Quarantined)
    return session.scalar(rows.where(Quarantined.study_id == study_id)) or 0


def remove(session: Session, quarantine_id: str) -> str | None:
    """Delete the row; returns the path of the file, which is the caller's to remove."""
    row = session.get(Quarantined, quarantine_id)
    if row is None:
        return None
    session.delete(row)
    return row.path
