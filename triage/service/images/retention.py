"""Deleting studies: by hand, or when their time is over. Rows go first, then files."""

from __future__ import annotations

from datetime import timedelta

from triage.service.access import audit
from triage.service.images.files import Files
from triage.service.records import studies
from triage.service.records.database import Database
from triage.service.records.models import now


def delete_study(
    database: Database, files: Files, study_id: str, by: str = "retention", address: str = ""
) -> bool:
    """Delete one study with images, analyses and pictures; False if there is none.

    `by`: who wants it, for the audit log, which keeps the study's UID. If the machine stops in
    between, the files have no row any more and go at the next start.
    """
    with database.session() as session:
        quarantined = studies.quarantined_paths(session, study_id)
        study = studies.get(session, study_id)
        if study is None or not studies.delete(session, study_id):
            return False
        about = {"study_instance_uid": study.study_instance_uid, "images": study.instance_count}
        if address:
            about["address"] = address
        audit.record(session, "study.deleted", by, study_id, details=about)
    for path in quarantined:
        files.remove(path)
    files.remove_study(study_id)
    return True


def delete_expired(database: Database, files: Files, days: int) -> list[str]:
    """Delete finished studies whose last image came more than `days` ago (0: none); their ids."""
    if not days:
        return []
    with database.reading() as session:
        expired = studies.expired(session, now() - timedelta(days=days))
    return [study_id for study_id in expired if delete_study(database, files, study_id)]
