"""The HTTP API and the plain page: thin, everything behind it is `Store` and `Worker`."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from triage import __version__
from triage.service import errors
from triage.service.page import render
from triage.service.ready import checks
from triage.service.store import Entry, Store
from triage.service.upload import receive
from triage.service.worker import Worker
from triage.settings import Settings
from triage.types import DISCLAIMER

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'",
}


def create_app(settings: Settings) -> FastAPI:
    """The service on the data below `settings.home`; store and worker live with the app."""
    store = Store(settings.home)
    worker = Worker(store, settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(store.open)
        try:
            worker.start()
            yield
        finally:
            await run_in_threadpool(worker.stop)
            store.close()

    app = FastAPI(
        title="trauma-ct-triage",
        description=DISCLAIMER,
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # these pages load scripts from the network
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.store, app.state.worker = store, worker
    errors.install(app)
    _add_headers(app)
    _add_health(app, settings, store, worker)
    _add_studies(app, settings, store, worker)
    return app


def _add_headers(app: FastAPI) -> None:
    @app.middleware("http")
    async def headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(SECURITY_HEADERS)
        return response


def _add_health(app: FastAPI, settings: Settings, store: Store, worker: Worker) -> None:
    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok", "version": __version__}

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        """Bundle, worker and storage are fit for work: 200, else 503; says which is not."""
        found = checks(settings, store, worker)
        ready = all(text == "ok" for text in found.values())
        return JSONResponse({"ready": ready, "checks": found}, 200 if ready else 503)


def _add_studies(app: FastAPI, settings: Settings, store: Store, worker: Worker) -> None:
    @app.post("/api/v1/studies", status_code=202)
    async def upload(request: Request) -> JSONResponse:
        """Take one zip of DICOM files; 202 when it is safely on disk and waits for analysis."""
        try:
            folder = await run_in_threadpool(store.new_folder)
            try:
                await receive(request, folder / "upload.zip", settings.max_bytes)
                entry = await run_in_threadpool(store.admit, folder)
            except BaseException:
                store.discard(folder)
                raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise errors.disk_full() from error
            raise
        worker.submit(entry.id)
        where = f"/api/v1/studies/{entry.id}"
        return JSONResponse(summary(entry), 202, headers={"Location": where})

    @app.get("/api/v1/studies")
    def studies() -> dict[str, Any]:
        """All studies, newest first, without their reports."""
        return {"studies": [summary(e) for e in store.entries()], "disclaimer": DISCLAIMER}

    @app.get("/api/v1/studies/{study}")
    def study(study: str) -> dict[str, Any]:
        """One study; `report` is its report.json once it is finished, else null."""
        entry = store.get(study)
        if entry is None:
            raise errors.not_found("study")
        return summary(entry) | {"report": entry.report}

    @app.get("/api/v1/studies/{study}/overlays/{name}")
    def overlay(study: str, name: str) -> FileResponse:
        """One overlay (PNG), by the name that the report gives below overlays/."""
        path = store.overlay(study, name)
        if path is None:
            raise errors.not_found("overlay")
        return FileResponse(path, media_type="image/png")

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        """The list as a page."""
        return render([summary(e) | {"report": e.report} for e in store.entries()])


def summary(entry: Entry) -> dict[str, Any]:
    """One line of the list: where the study stands, and the verdicts once there are some."""
    report = entry.report or {}
    targets = report.get("targets", {})
    return {
        "id": entry.id,
        "status": entry.status.value,
        "received_at": entry.received_at,
        "finished_at": entry.finished_at,
        "stage": entry.stage,
        "fraction": entry.fraction,
        "priority": report.get("priority"),
        "reason": report.get("reason"),
        "verdicts": {name: target["verdict"] for name, target in targets.items()},
    }
