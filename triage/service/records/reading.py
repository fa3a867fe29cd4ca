"""What readers said of findings: stored, shown, exported for retraining."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.service.records.models import Analysis, Finding, Study
from triage.service.records.reading_models import Review
from triage.types import Verdict

COMMENT = 2000  # characters
# What a reader's word says about the injury: agreed -> label, disagreed -> label. Agreement with a
# verdict that leaves the question open says nothing; disagreement with it means: there is one.
LABELS: dict[str, tuple[int | None, int | None]] = {
    Verdict.SUSPECTED: (1, 0),
    Verdict.NOT_EXCLUDED: (None, 1),
    Verdict.UNCERTIFIED: (None, 1),
    Verdict.NO_FINDING: (0, 1),
    Verdict.NOT_ASSESSED: (None, None),
}
COLUMNS = (
    "study_instance_uid",
    "series_instance_uid",
    "version",
    "bundle",
    "bundle_sha256",
    "target",
    "verdict",
    "score",
    "agree",
    "label",
    "comment",
    "reader",
    "reviewed_at",
)


def review(
    session: Session, finding: Finding, study_id: str, agree: bool, comment: str, reader: str
) -> Review:
    """Note what `reader` says of `finding`."""
    row = Review(
        study_id=study_id,
        analysis_id=finding.analysis_id,
        target=finding.target,
        verdict=finding.verdict,
        score=finding.score,
        agree=agree,
        comment=comment[:COMMENT],
        reader=reader,
    )
    session.add(row)
    session.flush()
    return row


def finding(session: Session, analysis_id: str, target: str) -> Finding | None:
    return session.get(Finding, (analysis_id, target))


def of_study(session: Session, study_id: str) -> list[Review]:
    """Every word on the study, newest first."""
    rows = select(Review).where(Review.study_id == study_id)
    return list(session.scalars(rows.order_by(Review.reviewed_at.desc(), Review.id)))


def label(verdict: str, agree: bool) -> int | None:
    """1: injured, 0: not, None: the review leaves it open."""
    return LABELS.get(verdict, (None, None))[0 if agree else 1]


def export(session: Session) -> Iterator[dict[str, Any]]:
    """One row of `COLUMNS` for the newest word of each reader on each finding; no patient data."""
    rows = (
        select(Review, Analysis, Study.study_instance_uid, Finding.series_instance_uid)
        .join(Analysis, Analysis.id == Review.analysis_id)
        .join(Study, Study.id == Review.study_id)
        .outerjoin(
            Finding,
            (Finding.analysis_id == Review.analysis_id) & (Finding.target == Review.target),
        )
        .order_by(Review.reviewed_at.desc(), Review.id)
    )
    seen: set[tuple[str, str, str]] = set()
    for said, analysis, uid, series in session.execute(rows):
        key = (said.analysis_id, said.target, said.reader)
        if key in seen:
            continue
        seen.add(key)
        yield {
            "study_instance_uid": uid,
            "series_instance_uid": series or "",
            "version": analysis.version,
            "bundle": f"{analysis.bundle_name} {analysis.bundle_version}".strip(),
            "bundle_sha256": analysis.bundle_sha256,
            "target": said.target,
            "verdict": said.verdict,
            "score": said.score,
            "agree": int(said.agree),
            "label": label(said.verdict, said.agree),
            "comment": said.comment,
            "reader": said.reader,
            "reviewed_at": said.reviewed_at.isoformat(timespec="seconds"),
        }
