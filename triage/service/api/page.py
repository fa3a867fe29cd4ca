"""/: the list as a plain page without scripts."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from triage.service.api.common import Running
from triage.service.api.view import overlays, summaries
from triage.service.page import render
from triage.service.records import lists, studies

router = APIRouter(tags=["page"])
ROWS = 100


@router.get("/", response_class=HTMLResponse)
def page(service: Running) -> str:
    """The list by urgency as a page."""
    with service.records.reading() as session:
        found = lists.by_urgency(session, studies.Query(limit=ROWS))
        pictures = overlays(session, [study.id for study in found])
        rows = [s | {"overlays": pictures[s["id"]]} for s in summaries(session, found)]
    return render(rows)
