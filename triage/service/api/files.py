"""Pictures and volumes of a study. A name is compared with what the report lists, never joined."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session

from triage.reasons import NotAnalysed
from triage.saliency.names import MESHES, SCENE, SHEETS
from triage.service import errors
from triage.service.api.common import Key, Running, answers, find_study
from triage.service.records import analyses, lists
from triage.service.records.models import Analysis
from triage.types import Target

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["pictures and volumes"])
Name = Annotated[str, InPath(max_length=128, description="As the report names it.")]
Of = Annotated[
    int | None,
    Query(alias="version", ge=1, le=1_000_000, description="Version of the analysis [current]."),
]
ONE_FILE = {"Content-Disposition": "attachment"}


class Resolution(StrEnum):
    """Of a volume. preview: voxels averaged to about 2 mm, small enough to be shown at once."""

    PREVIEW = "preview"
    FULL = "full"


def binary(kind: str, *codes: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI answers of a route that sends a file of this media type."""
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"content": {kind: schema}, "description": "The file."}, **answers(404, *codes)}


@router.get("/overlays/{name}", responses=binary("image/png"), response_class=FileResponse)
def get_overlay(service: Running, study: Key, name: Name, version: Of = None) -> FileResponse:
    """An overlay as PNG; `report.targets.<name>.overlays` lists them.

    `<overlay>_plain.png` is the same slice unmarked, `contact_sheet.png` and `contact_sheet.pdf`
    show all targets on one page.
    """
    with service.records.reading() as session:
        analysis = _analysis(session, study, version)
    listed = [o for t in _targets(analysis) for o in t.get("overlays") or ()]
    twins = [o.removesuffix(".png") + "_plain.png" for o in listed]
    path = _listed(analysis, "overlays/" + name, [*listed, *twins, *(listed and SHEETS)])
    if path is None:
        raise errors.not_found("overlay", "report.targets.<name>.overlays lists them.")
    kind = "application/pdf" if path.suffix == ".pdf" else "image/png"
    return FileResponse(path, media_type=kind)


@router.get("/saliency/{target}", responses=binary("application/gzip"), response_class=FileResponse)
def get_saliency(service: Running, study: Key, target: Target, version: Of = None) -> FileResponse:
    """What spoke for (positive) and against (negative) a target, on the voxels of the CT: NIfTI."""
    with service.records.reading() as session:
        analysis = _analysis(session, study, version)
    found = ((analysis.report or {}).get("targets") or {}).get(target.value) or {}
    name = found.get("saliency")
    path = _listed(analysis, name, [name]) if name else None
    if path is None:
        raise errors.not_found("saliency map", "It exists for targets that were assessed.")
    return FileResponse(
        path, media_type="application/gzip", filename=f"saliency_{target.value}.nii.gz"
    )


@router.get("/meshes/{name}", responses=binary("model/gltf-binary"), response_class=FileResponse)
def get_mesh(service: Running, study: Key, name: Name, version: Of = None) -> FileResponse:
    """The surface of an organ, where the analysis wrote one."""
    path = _written(service, study, version, MESHES, name)
    if path is None:
        raise errors.not_found("mesh", "This analysis wrote no surface of that name.")
    return FileResponse(path, media_type="application/octet-stream", headers=ONE_FILE)


@router.get("/scene/{name}", responses=binary("application/gzip"), response_class=FileResponse)
def get_scene(service: Running, study: Key, name: Name, version: Of = None) -> FileResponse:
    """What a viewer shows at once: small CT and maps on the working grid, as NIfTI.

    `<n>_ct.nii.gz` and `<n>_saliency_<target>.nii.gz`; n counts `report.series` from 1.
    """
    path = _written(service, study, version, SCENE, name)
    if path is None:
        raise errors.not_found("volume", "This analysis wrote no volume of that name.")
    return FileResponse(path, media_type="application/gzip", headers=ONE_FILE)


@router.get(
    "/volumes/{series}", responses=binary("application/gzip", 409), response_class=FileResponse
)
def get_volume(
    service: Running,
    study: Key,
    series: Annotated[str, InPath(max_length=128, description="SeriesInstanceUID or our id.")],
    resolution: Resolution = Resolution.FULL,
) -> FileResponse:
    """A received series as NIfTI: int16 HU, RAS+ mm. Made when it is first asked for.

    The preview of an analysed series is the analysis' own working grid (1.5 x 1.5 x 3 mm).
    """
    preview = resolution is Resolution.PREVIEW
    with service.records.reading() as session:
        found = find_study(session, study)
        current = analyses.current(session, found.id) if preview else None
        one = None if "\x00" in series else lists.series_of(session, found.id, series)
        if one is None:
            raise errors.not_found("series", "GET /api/v1/studies/{study} lists them.")
        paths = [service.image_path(i) for i in lists.instances_of_series(session, one.id)]
    small = _small(current, one.series_instance_uid) if current else None
    try:
        path = small or service.volumes.get(found.id, paths, preview=preview)
    except NotAnalysed as refusal:
        raise errors.ApiError(409, refusal.code, refusal.message, refusal.fix) from refusal
    name = f"series-{one.id[:8]}-{resolution.value}.nii.gz"
    return FileResponse(path, media_type="application/gzip", filename=name)


def _analysis(session: Session, key: str, version: int | None) -> Analysis:
    study = find_study(session, key)
    if version is None:
        found = analyses.current(session, study.id)
    else:
        every = analyses.of_study(session, study.id)
        found = next((a for a in every if a.version == version), None)
    if found is None:
        raise errors.not_found("analysis", "GET /api/v1/studies/{study} lists the versions.")
    return found


def _written(
    service: Running, key: str, version: int | None, folder: str, name: str
) -> Path | None:
    """The file of that name that an analysis wrote into one of its folders."""
    with service.records.reading() as session:
        analysis = _analysis(session, key, version)
    return folder_of(analysis, folder).get(name)


def folder_of(analysis: Analysis, name: str) -> dict[str, Path]:
    """File name -> path of what lies in that folder of an analysis' results."""
    folder = Path(analysis.folder, name)
    if not analysis.folder or not folder.is_dir():
        return {}
    return {p.name: p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}


def _small(analysis: Analysis, series: str) -> Path | None:
    """The analysed series' CT on the working grid, where the analysis wrote one."""
    every = (analysis.report or {}).get("series") or []
    uids = [s.get("series_instance_uid") for s in every]
    if series not in uids:
        return None
    return folder_of(analysis, SCENE).get(f"{uids.index(series) + 1}_ct.nii.gz")


def _targets(analysis: Analysis) -> list[dict[str, Any]]:
    return list(((analysis.report or {}).get("targets") or {}).values())


def _listed(analysis: Analysis, name: str, listed: Any) -> Path | None:
    """The file of that name, if the report lists it and it lies there."""
    if name not in set(listed):
        return None
    path = Path(analysis.folder, name)
    return path if path.is_file() else None
