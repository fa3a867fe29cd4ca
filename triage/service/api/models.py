"""What the API answers, as pydantic models; the OpenAPI document is made from them.

Times are ISO 8601 in UTC. The list and a study hold no name or number of a patient; what a PACS
answers does.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from triage.types import DISCLAIMER, Priority, Status, Target, Verdict

UID = "1.2.826.0.1.3680043.8.498.1234"
ID = "5f0c2b7f9d3e4b6a8c1d2e3f4a5b6c7d"
TIMES = {"received_at": "2026-11-21T14:03:07+00:00", "flagged_at": "2026-11-21T14:04:01+00:00"}
REASON = {
    "code": "TOO_FEW_SLICES",
    "message": "The series has too few slices to be an abdominal CT. (3 slices)",
    "fix": "Send the whole axial series.",
}
SUMMARY: dict[str, Any] = {
    "id": ID,
    "study_instance_uid": UID,
    "status": "analysed",
    "priority": "stat",
    "targets": {"spleen": {"verdict": "suspected", "probability": 0.71, "grade": "high"}},
    "reason": None,
    **TIMES,
    "last_image_at": "2026-11-21T14:03:19+00:00",
    "finished_at": "2026-11-21T14:04:01+00:00",
    "acknowledged_at": None,
    "version": 1,
    "instances": 240,
    "series": 1,
    "stage": "done",
    "fraction": 1.0,
}


def example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": value})


class Reason(BaseModel):
    """Why, and what to do: a code of the table of reasons."""

    model_config = example(REASON)
    code: str
    message: str
    fix: str


class ErrorBody(BaseModel):
    """Every error of the API has this shape."""

    error: Reason
    model_config = example(
        {
            "error": {
                "code": "NOT_FOUND",
                "message": "There is no such study.",
                "fix": "GET /api/v1/studies lists all.",
            }
        }
    )


class TargetSummary(BaseModel):
    """The answer to one question. While `calibrated_on` is simulated, read a score."""

    verdict: Verdict
    probability: float | None = None
    side: str | None = None
    grade: str | None = None
    reason: str | None = Field(None, description="Reason code where the target was not assessed.")


class StudySummary(BaseModel):
    """One line of the list."""

    model_config = example(SUMMARY)
    id: str = Field(description="Our own id; `study_instance_uid` finds the study as well.")
    study_instance_uid: str | None = Field(description="Null where the input named none.")
    status: Status
    priority: Priority | None = Field(description="Suggested; null while nothing can be said.")
    targets: dict[Target, TargetSummary] = Field(description="Empty until analysed.")
    reason: Reason | None = Field(description="Set when not_analysed or not_applicable.")
    received_at: str = Field(description="When the first image came.")
    last_image_at: str | None = Field(description="When the last new image came.")
    finished_at: str | None = Field(description="When the current verdict could be seen.")
    flagged_at: str | None = Field(description="When a target was first seen to be suspected.")
    acknowledged_at: str | None = Field(description="When somebody said: seen.")
    version: int | None = Field(
        description="Number of the current analysis; null before the first."
    )
    instances: int = Field(description="Images received.")
    series: int = Field(description="Series received.")
    stage: str = Field(description="What the running analysis does; empty where none runs.")
    fraction: float = Field(ge=0, le=1, description="How far the running analysis is.")


class StudyList(BaseModel):
    """A page of studies. `total` counts all that match; ask on with `offset`."""

    model_config = example(
        {"studies": [SUMMARY], "total": 1, "offset": 0, "limit": 100, "disclaimer": DISCLAIMER}
    )
    studies: list[StudySummary]
    total: int
    offset: int
    limit: int
    disclaimer: str = DISCLAIMER


class SeriesSummary(BaseModel):
    """One series of a study, as it was received."""

    id: str
    series_instance_uid: str
    modality: str
    description: str
    instances: int
    bytes: int
    volume: str = Field(description="Where its volume can be had as NIfTI.")


class Version(BaseModel):
    """One analysis; a late image makes a new one and leaves the earlier ones readable."""

    version: int
    status: Status
    priority: Priority | None = None
    reason: Reason | None = None
    started_at: str | None = None
    finished_at: str | None = None
    current: bool


class Moment(BaseModel):
    """Something that happened to the study."""

    at: str
    what: str = Field(description="received, last image, started, finished, flagged, acknowledged")
    detail: str = ""


class Study(StudySummary):
    """One study with everything known of it; `report` is the current report.json."""

    model_config = example(
        SUMMARY
        | {
            "report": {"schema_version": "1.0", "status": "analysed"},
            "versions": [{"version": 1, "status": "analysed", "priority": "stat", "current": True}],
            "series_list": [
                {
                    "id": ID,
                    "series_instance_uid": UID + ".2",
                    "modality": "CT",
                    "description": "Abdomen portal venous 2 mm",
                    "instances": 240,
                    "bytes": 126_000_000,
                    "volume": f"/api/v1/studies/{ID}/volumes/{UID}.2",
                }
            ],
            "timeline": [{"at": TIMES["received_at"], "what": "received", "detail": ""}],
        }
    )
    report: dict[str, Any] | None
    versions: list[Version]
    series_list: list[SeriesSummary]
    timeline: list[Moment]


class Done(BaseModel):
    """An order was carried out."""

    id: str
    status: Status | None = None
    detail: str
    model_config = example({"id": ID, "status": "received", "detail": "Version 2 is queued."})


class Health(BaseModel):
    """The process answers."""

    model_config = example({"status": "ok", "version": "0.1.0"})
    status: str
    version: str


class Readiness(BaseModel):
    """`checks`: name of each check -> "ok", or what is wrong."""

    model_config = example(
        {
            "ready": True,
            "checks": {
                "database": "ok",
                "disk": "ok",
                "bundle": "ok",
                "worker": "ok",
                "dicom": "ok",
            },
        }
    )
    ready: bool
    checks: dict[str, str]


class QuarantinedFile(BaseModel):
    """A file that was taken and belongs to no study: somebody must look."""

    model_config = example(
        {
            "id": ID,
            "reason": "OTHER_BYTES",
            "meaning": "An image with this SOPInstanceUID and other content is stored already.",
            "detail": "",
            "sop_instance_uid": UID + ".2.7",
            "size": 526336,
            "sender": "CT_ER1",
            "times": 1,
            "received_at": TIMES["received_at"],
        }
    )
    id: str
    reason: str
    meaning: str
    detail: str
    sop_instance_uid: str
    size: int
    sender: str
    times: int = Field(description="How often the same bytes came.")
    received_at: str


class Quarantine(BaseModel):
    """The newest files in quarantine, and how many there are by reason."""

    files: list[QuarantinedFile]
    by_reason: dict[str, int]


class CohortProgress(BaseModel):
    """Retrospective studies submitted together, and how far they are."""

    model_config = example(
        {
            "id": ID,
            "name": "2024-trauma",
            "created_at": TIMES["received_at"],
            "cancelled_at": None,
            "counts": {
                "total": 1200,
                "waiting": 700,
                "refused": 3,
                "received": 0,
                "analysing": 1,
                "analysed": 480,
                "not_analysed": 16,
                "not_applicable": 0,
            },
        }
    )
    id: str
    name: str
    created_at: str
    cancelled_at: str | None
    counts: dict[str, int] = Field(
        description="Folders: total, waiting, refused; and of its studies in each status."
    )


class Cohorts(BaseModel):
    cohorts: list[CohortProgress]


class Uploaded(BaseModel):
    """What became of an upload; the studies wait for analysis now."""

    model_config = example(
        {
            "studies": [SUMMARY | {"status": "received", "priority": None, "targets": {}}],
            "stored": 240,
            "duplicates": 0,
            "quarantined": 0,
        }
    )
    studies: list[StudySummary]
    stored: int = Field(description="New images.")
    duplicates: int = Field(description="Images that were there already.")
    quarantined: int = Field(description="Files that belong to no study: see /api/v1/quarantine.")


class PacsStudy(BaseModel):
    """A study that the PACS has."""

    model_config = example(
        {
            "study_instance_uid": UID,
            "patient_id": "12345",
            "patient_name": "DOE^JANE",
            "accession_number": "A17",
            "study_date": "20261121",
            "study_description": "CT abdomen",
            "modalities": "CT",
            "instances": 240,
        }
    )
    study_instance_uid: str
    patient_id: str
    patient_name: str
    accession_number: str
    study_date: str
    study_description: str
    modalities: str
    instances: int | None


class PacsStudies(BaseModel):
    """Studies that fit, 200 at most."""

    studies: list[PacsStudy]
