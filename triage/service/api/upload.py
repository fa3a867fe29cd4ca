"""POST /api/v1/studies: a zip of DICOM files."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from triage.service.api.common import Running, answers
from triage.service.api.models import Uploaded
from triage.service.api.receive import receive
from triage.service.api.view import summaries
from triage.service.intake.archive import Upload, take_zip
from triage.service.intake.items import Source, State
from triage.service.records import studies

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


@router.post("", status_code=202, openapi_extra=BODY, responses=answers(400, 408, 413, 507))
async def upload_study(service: Running, request: Request, response: Response) -> Uploaded:
    """Take one zip of DICOM files, raw or as a form. 202: every image is safely on disk.

    What cannot be read becomes a study, too: `not_analysed` with its reason, so that it shows.
    """
    sender = request.client.host if request.client else ""
    with service.files.workspace() as folder:
        path = folder / "upload.zip"
        await receive(request, path, service.settings.max_bytes)
        taken = await run_in_threadpool(take_zip, service.intake, path, Source("upload", sender))
    found = await run_in_threadpool(taken_studies, service, taken)
    response.headers["Location"] = f"/api/v1/studies/{taken.studies[0]}"
    return Uploaded.model_validate(found)


def taken_studies(service: Any, taken: Upload) -> dict[str, Any]:
    """The fields of `models.Uploaded`."""
    with service.records.reading() as session:
        every = [studies.get(session, study) for study in taken.studies]
        shown = summaries(session, [study for study in every if study is not None])
    return {
        "studies": shown,
        "stored": taken.counts[State.STORED],
        "duplicates": taken.counts[State.DUPLICATE],
        "quarantined": taken.counts[State.QUARANTINED],
    }
