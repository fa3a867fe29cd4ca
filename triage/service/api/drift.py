"""Whether what comes in still looks as it did."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from triage.service.api.common import Running, answers
from triage.service.api.models import example
from triage.service.api.view import iso
from triage.service.drift.assess import MOST, weeks
from triage.service.records import drift as rows
from triage.service.records.drift_models import DriftWarning
from triage.service.records.models import now

router = APIRouter(prefix="/api/v1/drift", tags=["drift"])
FIGURE: dict[str, Any] = {
    "figure": "noise_hu",
    "psi": 0.41,
    "p": 2.1e-9,
    "drifted": True,
    "term": None,
    "then": 12.5,
    "now": 19.0,
    "studies": 84,
}
COMPARISON: dict[str, Any] = {
    "against": "first_weeks",
    "state": "ok",
    "studies": 312,
    "figures": [FIGURE],
}
WARNING: dict[str, Any] = {
    "figure": "noise_hu",
    "against": "first_weeks",
    "begun_at": "2026-11-21T14:03:07+00:00",
    "ended_at": None,
    "details": FIGURE,
}
WEEK: dict[str, Any] = {
    "week": "2026-W47",
    "studies": 84,
    "medians": {"noise_hu": 19.0},
    "shares": {"phase": {"portal_venous": 0.9, "arterial": 0.1}},
}


class FigureOut(BaseModel):
    """One figure: `then` and `now` are medians, or shares of `term`."""

    figure: str
    psi: float
    p: float
    drifted: bool
    term: str | None
    then: float
    now: float
    studies: int
    model_config = example(FIGURE)


class ComparisonOut(BaseModel):
    """With one reference. `state`: ok, no_reference, unreadable, learning, too_few."""

    against: str
    state: str
    studies: int = Field(description="Behind the reference.")
    figures: list[FigureOut]
    model_config = example(COMPARISON)


class WarningOut(BaseModel):
    figure: str
    against: str
    begun_at: str | None
    ended_at: str | None
    details: dict[str, Any]
    model_config = example(WARNING)


class WeekOut(BaseModel):
    """One ISO week of live studies."""

    week: str
    studies: int
    medians: dict[str, float]
    shares: dict[str, dict[str, float]]
    model_config = example(WEEK)


class Drift(BaseModel):
    """`studies` newest ones, from `since` on, compared with each reference; open warnings first."""

    looked_at: str | None
    studies: int
    since: str | None
    comparisons: list[ComparisonOut]
    warnings: list[WarningOut]
    weeks: list[WeekOut]
    model_config = example(
        {
            "looked_at": "2026-11-21T14:10:00+00:00",
            "studies": 84,
            "since": "2026-11-14T14:12:00+00:00",
            "comparisons": [COMPARISON],
            "warnings": [WARNING],
            "weeks": [WEEK],
        }
    )


@router.get("", responses=answers())
def get_drift(
    service: Running, number: Annotated[int, Query(alias="weeks", ge=1, le=52)] = 12
) -> Drift:
    """Statistics of the last weeks and how they compare; no patient data.

    The bundle's own patients, and this service's first weeks, are what is compared with.
    """
    with service.records.reading() as session:
        opened = rows.open_warnings(session)
        ended = rows.ended_warnings(session, 50)
        lately = rows.newest(session, MOST, now() - timedelta(weeks=number))
    latest = service.drift.latest
    return Drift.model_validate(
        {
            "looked_at": iso(service.drift.looked_at),
            "studies": latest.studies,
            "since": iso(latest.since),
            "comparisons": [
                {
                    "against": c.against,
                    "state": c.state,
                    "studies": c.studies,
                    "figures": [m.to_dict() for m in c.figures],
                }
                for c in latest.comparisons
            ],
            "warnings": [_shown(w) for w in (*opened, *ended)],
            "weeks": weeks(lately)[:number],
        }
    )


def _shown(warning: DriftWarning) -> dict[str, Any]:
    return {
        "figure": warning.figure,
        "against": warning.against,
        "begun_at": iso(warning.begun_at),
        "ended_at": iso(warning.ended_at),
        "details": warning.details,
    }
