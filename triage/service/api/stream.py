"""/api/v1/events: what happens, as it happens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from triage.service import errors
from triage.service.access.principal import Who
from triage.service.api.common import Running, answers
from triage.service.api.models import SUMMARY
from triage.service.events import READERS

router = APIRouter(prefix="/api/v1/events", tags=["events"])
# A login may end meanwhile: the stream does, and the browser asks anew with its Last-Event-ID.
STREAM_S = 60.0
EXAMPLE = 'id: 5f0c2b7f-17\nevent: flagged\ndata: {"id": "%s", "priority": "stat"}\n\n'
STREAM = {
    "description": (
        "Server-sent events. `received`, `progress`, `updated`, `flagged` (a target became "
        "suspected) carry a study as in the list; `deleted` its id; `hello` stands at the "
        "beginning; `drift`: what comes in no longer looks as it did, or does so again; `reset` "
        "means that events were missed: load the list again."
    ),
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": EXAMPLE % SUMMARY["id"],
        }
    },
}


@router.get("", responses={200: STREAM, **answers()}, response_class=StreamingResponse)
async def get_events(
    service: Running,
    who: Who,
    last_event_id: Annotated[
        str | None,
        Header(max_length=64, description="Go on after this one; browsers send it by themselves."),
    ] = None,
) -> StreamingResponse:
    """A stream without end: every change of a study, comments while nothing happens."""
    if service.hub.readers >= READERS:
        raise errors.ApiError(
            503, "TOO_MANY_READERS", f"{READERS} streams are open.", "Close some, or poll the list."
        )
    return StreamingResponse(
        service.hub.stream(last_event_id, None if who.how == "local" else STREAM_S),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )
