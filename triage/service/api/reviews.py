"""What readers say of findings: agree or disagree, with a comment; as CSV for retraining."""

from __future__ import annotations

import csv
import io
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from triage.service import errors
from triage.service.access import audit
from triage.service.access.principal import Who
from triage.service.api.common import Key, Running, answers, find_study
from triage.service.api.models import ID, example
from triage.service.api.view import iso
from triage.service.records import analyses, reading
from triage.service.records.reading_models import Review
from triage.types import Target

router = APIRouter(prefix="/api/v1", tags=["reviews"])
Of = Annotated[
    int | None,
    Query(alias="version", ge=1, le=1_000_000, description="Version of the analysis [current]."),
]


class Said(BaseModel):
    """A reader's word on one finding."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"agree": False, "comment": "motion"}}
    )
    agree: bool
    comment: str = Field("", max_length=reading.COMMENT)


class ReviewOut(BaseModel):
    """One word of one reader. `label`: 1 injured, 0 not, null where the review leaves it open."""

    model_config = example(
        {
            "id": ID,
            "target": "spleen",
            "version": 1,
            "verdict": "suspected",
            "score": 0.71,
            "agree": False,
            "label": 0,
            "comment": "motion",
            "reader": "local",
            "reviewed_at": "2026-11-21T14:10:00.000+00:00",
        }
    )
    id: str
    target: Target
    version: int
    verdict: str
    score: float | None
    agree: bool
    label: int | None
    comment: str
    reader: str
    reviewed_at: str


class Reviews(BaseModel):
    reviews: list[ReviewOut]


@router.post("/studies/{study}/findings/{target}/review", responses=answers(404, 409))
def review_finding(
    service: Running, who: Who, study: Key, target: Target, said: Said, version: Of = None
) -> ReviewOut:
    """Agree or disagree with one finding. All words are kept; a reader's newest one counts."""
    with service.records.session() as session:
        found = find_study(session, study)
        versions = analyses.of_study(session, found.id)
        analysis = next(
            (a for a in versions if (a.current if version is None else a.version == version)), None
        )
        finding = reading.finding(session, analysis.id, target.value) if analysis else None
        if analysis is None or finding is None:
            raise errors.conflict("There is no such finding yet.", "Wait for the analysis.")
        comment = said.comment.replace("\x00", " ").strip()
        row = reading.review(session, finding, found.id, said.agree, comment, who.name)
        shown = _out(row, analysis.version)
        details = {"target": target.value, "agree": said.agree, "version": analysis.version}
        audit.record(session, "finding.reviewed", who.name, found.id, details=details)
    return shown


@router.get("/studies/{study}/reviews", responses=answers(404))
def list_reviews(service: Running, study: Key) -> Reviews:
    """Every word on the findings of a study, newest first."""
    with service.records.reading() as session:
        found = find_study(session, study)
        versions = {a.id: a.version for a in analyses.of_study(session, found.id)}
        rows = [_out(r, versions[r.analysis_id]) for r in reading.of_study(session, found.id)]
    return Reviews(reviews=rows)


CSV = {"text/csv": {"schema": {"type": "string"}, "example": ",".join(reading.COLUMNS) + "\r\n"}}


@router.get(
    "/reviews.csv",
    response_class=Response,
    responses={200: {"content": CSV, "description": "One row a reader and finding."}, **answers()},
)
def export_reviews(service: Running) -> Response:
    """What readers said of all studies, for retraining; no patient data beyond UIDs."""
    text = io.StringIO()
    table = csv.DictWriter(text, reading.COLUMNS)
    table.writeheader()
    with service.records.reading() as session:
        for row in reading.export(session):
            table.writerow({k: _cell(v) for k, v in row.items()})
    headers = {"Content-Disposition": 'attachment; filename="reviews.csv"'}
    return Response(text.getvalue(), media_type="text/csv", headers=headers)


def _out(row: Review, version: int) -> ReviewOut:
    return ReviewOut(
        id=row.id,
        target=Target(row.target),
        version=version,
        verdict=row.verdict,
        score=row.score,
        agree=row.agree,
        label=reading.label(row.verdict, row.agree),
        comment=row.comment,
        reader=row.reader,
        reviewed_at=iso(row.reviewed_at) or "",
    )


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it (OWASP)."""
    risky = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if risky else value
