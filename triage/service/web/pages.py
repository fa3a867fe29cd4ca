"""The routes of the pages. Rights: `access.rights`. Patients' data are never kept by a browser."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from triage.service.api.common import Key, Running, find_study
from triage.service.records.models import Study, now
from triage.service.web import listing, machine, reading, wishes
from triage.service.web.listing import Asked
from triage.service.web.render import page
from triage.types import Priority

router = APIRouter(include_in_schema=False)


def asked(
    request: Request,
    tab: str = "",
    status: str = "",
    priority: str = "",
    seen: str = "",
    search: str = "",
    sort: str = "",
    offset: str = "",
) -> Asked:
    """What the address asks of the list; anything unknown is the default."""
    start = int(offset) if offset.isdecimal() and len(offset) < 9 else 0
    known = Asked(tab, status, priority, seen, search, sort, start).checked()
    return known if known.sort in _sorts(request) else replace(known, sort=listing.SORTS[0])


def _sorts(request: Request) -> tuple[str, ...]:
    """Where patients are masked no row may say where a name stands in the alphabet."""
    masked = wishes.wishes(request).mask
    return tuple(sort for sort in listing.SORTS if not (masked and sort == "patient"))


Wanted = Annotated[Asked, Depends(asked)]


@router.get("/", response_class=HTMLResponse)
def worklist_page(request: Request, service: Running, wanted: Wanted) -> Response:
    """The worklist; with scripts it keeps itself up to date."""
    with service.records.reading() as session:
        rows, total = listing.page(session, wanted, wishes.wishes(request))
        counts = listing.counts(session)
    return page(
        request,
        "worklist.html",
        asked=wanted,
        rows=rows,
        total=total,
        counts=counts,
        priorities=list(Priority),
        statuses=listing.SHOWN,
        sorts=_sorts(request),
        tabs=listing.TABS,
        more=wanted.offset + len(rows) < total,
        dicom=machine.dicom_address(service.settings),
    )


@router.get("/worklist/rows", response_class=HTMLResponse)
def worklist_rows(
    request: Request,
    service: Running,
    wanted: Wanted,
    ids: Annotated[str, Query(max_length=8000)] = "",
) -> Response:
    """Rows of these studies as they stand now, where they are on the list; or its next page."""
    named = [i for i in ids.split(",") if i.isalnum()]
    with service.records.reading() as session:
        if named:
            rows = listing.by_ids(session, named, wanted, wishes.wishes(request))
            total = 0
        else:
            rows, total = listing.page(session, wanted, wishes.wishes(request))
        counts = listing.counts(session)
    more = not named and wanted.offset + len(rows) < total
    return page(
        request, "rows.html", asked=wanted, rows=rows, counts=counts, more=more, tabs=listing.TABS
    )


@router.get("/studies/{study}", response_class=HTMLResponse)
def study_page(request: Request, service: Running, study: Key, version: int = 0) -> Response:
    """One study: verdicts, pictures, volumes, versions, timeline."""
    own = wishes.wishes(request)
    with service.records.reading() as session:
        found: Study = find_study(session, study)
        shown = reading.study(session, found, version, own)
    return page(request, "study.html", s=shown)


@router.get("/admin", response_class=HTMLResponse)
def admin_page(request: Request, service: Running) -> Response:
    """Bundle, queue, workers, disk, senders, tokens, audit."""
    shown = machine.machine(service, wishes.wishes(request).words)
    return page(request, "admin.html", m=shown, now=now())


@router.get("/login", response_class=HTMLResponse)
def login_page(request: Request, next: str = "/") -> Response:
    """Name and password, sent to /api/v1/session."""
    return page(request, "login.html", next=wishes.own_path(next))


@router.get("/preferences")
def set_preferences(
    request: Request,
    lang: str | None = None,
    theme: str | None = None,
    mask: str | None = None,
    next: str = "/",
) -> Response:
    """Language, theme and hidden patients for this browser, then back to the page."""
    answer = RedirectResponse(wishes.own_path(next), 303)
    wanted = {"lang": lang, "theme": theme, "mask": mask}
    wishes.keep(answer, request.url.scheme == "https", wanted)
    return answer
