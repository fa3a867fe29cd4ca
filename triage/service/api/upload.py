"""POST /api/v1/studies: a zip of DICOM files."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from triage.service.access.principal import Principal, Role, Who
from triage.service.api.common import Running, answers
from triage.service.api.models import Uploaded
from triage.service.api.receive import receive
from triage.service.api.view import summaries
from triage.service.intake.archive import Upload, take_zip
from triage.service.intake.items import Source, State
from triage.service.records import studies
from triage.types import Status

router = APIRouter(prefix="/api/v1/studies", tags=["studies"])
BINARY = {"schema": {"type": "string", "format": "binary"}}
FORM = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}},
        "required": ["file"],
    }
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/zip": BINARY, "multipart/form-data": FORM},
    }
}


# A summary for those who may not read: nothing of the result.
UNSEEN: dict[str, Any] = {
    "status": Status.RECEIVED,
    "priority": None,
    "targets": {},
    "reason": None,
    "finished_at": None,
    "flagged_at": None,
    "acknowledged_at": None,
    "version": None,
    "stage": "",
    "fraction": 0.0,
}


@router.post("", status_code=202, openapi_extra=BODY, responses=answers(400, 408, 413, 507))
async def upload_study(
    service: Running, who: Who, request: Request, response: Response
) -> Uploaded:
    """Take one zip of DICOM files, raw or as a form. 202: every image is safely on disk.

    What cannot be read becomes a study, too: `not_analysed` with its reason, so that it shows.
    """
    sender = who.address if who.how == "local" else who.name
    with service.files.workspace() as folder:
        path = folder / "upload.zip"
        await receive(request, path, service.settings.max_bytes)
        taken = await run_in_threadpool(take_zip, service.intake, path, Source("upload", sender))
    found = await run_in_threadpool(taken_studies, service, taken, who)
    response.headers["Location"] = f"/api/v1/studies/{taken.studies[0]}"
    return Uploaded.model_validate(found)


def taken_studies(service: Any, taken: Upload, who: Principal) -> dict[str, Any]:
    """The fields of `models.Uploaded`. Who may send and not see is not told what was found: the
    study may have been there already, analysed."""
    with service.records.reading() as session:
        every = [studies.get(session, study) for study in taken.studies]
        shown = summaries(session, [study for study in every if study is not None])
    if not who.may(Role.VIEWER):
        shown = [study | UNSEEN for study in shown]
    return {
        "studies": shown,
        "stored": taken.counts[State.STORED],
        "duplicates": taken.counts[State.DUPLICATE],
        "quarantined": taken.counts[State.QUARANTINED],
    }
