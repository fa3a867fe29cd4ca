"""De-identified studies for research."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from triage.service import errors
from triage.service.access.principal import Who
from triage.service.api.common import Key, Running, find_study
from triage.service.api.files import binary
from triage.service.research import export
from triage.service.research.key import KeyUnfitError

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["research"])
FIX = {
    "OFF": "Set TRIAGE_RESEARCH_EXPORT=true and start the service again.",
    "BUSY": "Try again in a minute.",
    "NOTHING": "Only CT images without burnt-in annotations are exported.",
}


@router.get(
    "/deidentified", responses=binary("application/zip", 409), response_class=StreamingResponse
)
def export_study(service: Running, who: Who, study: Key) -> StreamingResponse:
    """Images without identity (PS3.15 annex E) and their answer, as a zip for research.

    Off unless TRIAGE_RESEARCH_EXPORT is set. Pseudonyms and UIDs are the same at each export.
    """
    with service.records.reading() as session:
        study_id = find_study(session, study).id
    room = Path(tempfile.mkdtemp(dir=service.files.work))  # what a stop leaves goes at the start
    try:
        done = export.export_study(
            service.settings,
            service.records,
            service.files,
            study_id,
            room / "study",
            by=who.name,
            address=who.address,
        )
        path = export.zip_folder(room / "study", room / "study.zip")
        size, file = path.stat().st_size, path.open("rb")
    except export.CannotExportError as error:
        fix = FIX.get(error.code, "Look at the study's status.")
        raise errors.conflict(str(error), fix) from error
    except KeyUnfitError as error:
        raise errors.conflict(str(error), "Look at TRIAGE_RESEARCH_KEY.") from error
    finally:  # what is open is sent all the same; whoever breaks off leaves nothing behind
        shutil.rmtree(room, ignore_errors=True)
    headers = {
        "Content-Disposition": f'attachment; filename="{done.patient}.zip"',
        "Content-Length": str(size),
    }
    return StreamingResponse(_blocks(file), media_type="application/zip", headers=headers)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(1 << 20):
            yield block
