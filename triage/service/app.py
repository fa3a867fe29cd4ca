"""The HTTP app: routes, errors, boundary. What it serves is a `Service`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from triage import __version__
from triage.service import errors
from triage.service.access import api as access_api
from triage.service.access.bind import always_login, is_encrypted
from triage.service.access.guard import authorise
from triage.service.api.common import answers
from triage.service.boundary import Boundary
from triage.service.intake import stow
from triage.service.service import Service
from triage.service.web import assets, pages, render
from triage.settings import Settings
from triage.types import DISCLAIMER

GROUPS = (
    "upload",
    "studies",
    "files",
    "research",
    "drift",
    "stream",
    "lists",
    "pacs",
    "health",
    "reviews",
    "deliveries",
    "orders",
)
document = APIRouter()
HOSTS = ("127.0.0.1", "localhost", "[::1]")


def create_app(settings: Settings, service: Service | None = None) -> FastAPI:
    """The app of a service that runs already, or of one that starts and stops with the app."""
    own = service is None
    running = service or Service(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if own:
            await run_in_threadpool(running.start)
        try:
            await run_in_threadpool(render.prepare)
            await running.hub.start()
            yield
        finally:
            await running.hub.stop()
            if own:
                await run_in_threadpool(running.stop)

    app = FastAPI(
        title="trauma-ct-triage",
        description=DISCLAIMER,
        version=__version__,
        openapi_url=None,  # `openapi` below: a route of ours, which asks for a right
        docs_url=None,  # these pages load scripts from the network
        redoc_url=None,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        dependencies=[Depends(authorise)],
    )
    app.state.service = running
    errors.install(app)
    for group in GROUPS:
        app.include_router(import_module(f"triage.service.api.{group}").router)
    app.include_router(access_api.router)
    app.include_router(pages.router)
    app.routes.append(assets.mount())
    app.include_router(document)
    images = stow.router(lambda request: request.app.state.service.intake)
    app.include_router(images, responses=answers(400, 408, 413, 415, 507))
    app.add_middleware(
        Boundary,
        hosts=host_names(settings),
        large=takes_upload,
        encrypted=is_encrypted(settings),
    )
    return app


def host_names(settings: Settings) -> frozenset[str]:
    """Names that a Host header may have; empty: all, where a cookie or token is needed anyway."""
    named = {name.strip().lower() for name in settings.http_names.split(",") if name.strip()}
    if always_login(settings) and not named:
        return frozenset()
    return frozenset({*HOSTS, settings.http_host.lower(), *named})


@document.get("/api/v1/openapi.json", include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """The description of all routes."""
    app: FastAPI = request.app
    return JSONResponse(app.openapi())


def takes_upload(method: str, path: str) -> bool:
    """Routes that read a body of any size and cap it by themselves."""
    return method == "POST" and (path == "/api/v1/studies" or path.startswith("/dicom-web/studies"))
