"""/healthz, /readyz, /metrics: for people who watch the machine; no patient data."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from triage import __version__
from triage.service.api.common import Running, answers
from triage.service.api.models import Health, Readiness
from triage.service.ready import checks

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health(status="ok", version=__version__)


@router.get(
    "/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "No."}}
)
def readyz(service: Running) -> JSONResponse:
    """Database, disk, bundle, worker and DICOM port are fit for work: 200, else 503 and which."""
    found = checks(service)
    ready = all(text == "ok" for text in found.values())
    return JSONResponse({"ready": ready, "checks": found}, 200 if ready else 503)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={
        200: {"content": {"text/plain": {"example": 'triage_studies{status="analysed"} 12.0\n'}}},
        **answers(),
    },
)
def metrics(service: Running) -> Response:
    """Prometheus text format."""
    text, kind = service.metrics.text()
    return Response(text, media_type=kind)
