"""The HTTP app: routes, errors, boundary. What it serves is a `Service`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from triage import __version__
from triage.service import errors
from triage.service.api.common import answers
from triage.service.boundary import Boundary
from triage.service.intake import stow
from triage.service.service import Service
from triage.settings import Settings
from triage.types import DISCLAIMER

GROUPS = ("upload", "studies", "files", "stream", "lists", "pacs", "health", "page")
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
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # these pages load scripts from the network
        redoc_url=None,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = running
    errors.install(app)
    for group in GROUPS:
        app.include_router(import_module(f"triage.service.api.{group}").router)
    images = stow.router(lambda request: request.app.state.service.intake)
    app.include_router(images, responses=answers(400, 408, 413, 415, 507))
    hosts = {*HOSTS, settings.http_host}
    app.add_middleware(Boundary, hosts=hosts, large=takes_upload)
    return app


def takes_upload(method: str, path: str) -> bool:
    """Routes that read a body of any size and cap it by themselves."""
    return method == "POST" and (path == "/api/v1/studies" or path.startswith("/dicom-web/studies"))
