"""One study for research: images without identity and their answer, in a folder or a zip.

train_images/<patient>/<series>/<number>.dcm    as `triage train` reads them
answers/<patient>_<study>.json                  answer, reviews, and what was left out
"""

from __future__ import annotations

import json
import shutil
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triage import __version__
from triage.dicom import child
from triage.dicom.confidentiality import BASIC_PROFILE, MODIFIED_DATES
from triage.dicom.deidentify import LEFT_OUT
from triage.files import write_atomic
from triage.reasons import NotAnalysed
from triage.service.access import audit
from triage.service.images.files import Files
from triage.service.records import Database, analyses, reading, studies
from triage.service.records import queue as waiting
from triage.service.research.answer import answer_of
from triage.service.research.key import load_key
from triage.settings import Settings
from triage.types import DISCLAIMER

TASK = "triage.dicom.deidentify_files:deidentify_files"
FILE_S = 2.0  # seconds that one image may take
IMAGES, ANSWERS = "train_images", "answers"


class CannotExportError(RuntimeError):
    """Why nothing is exported, in one line. `code`: OFF, NOTHING, BUSY or that of a refusal."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Exported:
    """What was written. `left_out`: code of `deidentify.LEFT_OUT` -> images."""

    patient: str
    images: int
    left_out: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


_one_at_a_time = threading.Lock()


def require_allowed(settings: Settings) -> None:
    """Raises CannotExportError."""
    if not settings.research_export:
        raise CannotExportError("OFF", "Export for research is off: set TRIAGE_RESEARCH_EXPORT.")


def export_study(
    settings: Settings,
    records: Database,
    files: Files,
    study_id: str,
    out: Path,
    *,
    by: str,
    address: str = "",
) -> Exported:
    """Write one study (our id) below `out` and note it in the audit log, before anybody gets it.

    Raises CannotExportError, KeyUnfitError, OSError.
    """
    require_allowed(settings)
    if not _one_at_a_time.acquire(blocking=False):
        raise CannotExportError("BUSY", "Another study is being exported: try again later.")
    try:
        exported = _export(settings, records, files, study_id, out)
    finally:
        _one_at_a_time.release()
    about = {
        "images": exported.images,
        "left_out": exported.left_out,
        "dates": settings.research_dates,
        **({"address": address} if address else {}),
    }
    with records.session() as session:
        audit.record(session, "study.deidentified", by, study_id, details=about)
    return exported


def _export(
    settings: Settings, records: Database, files: Files, study_id: str, out: Path
) -> Exported:
    with records.reading() as session:
        study = studies.get(session, study_id)
        paths = waiting.files_of(session, study_id, study.images_version) if study else []
        current = analyses.current(session, study_id)
        report = current.report if current else None
        reviews = reading.of_study(session, study_id)
    found = _images(settings, [str(files.root / path) for path in paths], out / IMAGES)
    if not found["written"]:
        why = ", ".join(f"{n} x {LEFT_OUT[code]}" for code, n in found["left_out"].items())
        raise CannotExportError("NOTHING", f"No image can be exported: {why or 'there is none'}.")
    about = _about(settings, found)
    answer = about | answer_of(report, reviews, found["uids"])
    folder = out / ANSWERS
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    uid = found["uids"].get(study.study_instance_uid if study else "", "study")
    text = json.dumps(answer, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    write_atomic(folder / f"{found['patient']}_{uid}.json", text.encode("ascii"))
    return Exported(
        found["patient"], found["written"], found["left_out"], tuple(about["deidentified"]["notes"])
    )


def _images(settings: Settings, paths: list[str], folder: Path) -> dict[str, Any]:
    request = {
        "files": paths,
        "folder": str(folder),
        "key": load_key(settings).hex(),
        "dates": settings.research_dates == "shifted",
        "max_bytes": settings.max_bytes,
    }
    try:
        found, _ = child.run(
            TASK,
            request,
            timeout_s=settings.decode_timeout_s + FILE_S * len(paths),
            memory_bytes=settings.decode_memory_bytes,
            may_write=True,
        )
    except NotAnalysed as refusal:
        raise CannotExportError(refusal.code, refusal.message) from refusal
    return found


def _about(settings: Settings, found: dict[str, Any]) -> dict[str, Any]:
    """How it was done, and what somebody must know who gets it."""
    dates = settings.research_dates == "shifted"
    notes = [f"{n} images left out: {LEFT_OUT[code]}" for code, n in found["left_out"].items()]
    if found["unsaid"]:
        notes.append(
            f"{found['unsaid']} images do not say whether annotations are burnt in: look at them"
        )
    codes = [BASIC_PROFILE, *([MODIFIED_DATES] if dates else [])]
    return {
        "disclaimer": DISCLAIMER,
        "simulated": bool(found["simulated"]),
        "deidentified": {
            "program": f"trauma-ct-triage {__version__}",
            "profile": [{"scheme": "DCM", "code": c, "meaning": m} for c, m in codes],
            "dates": settings.research_dates,
            "images": found["written"],
            "left_out": found["left_out"],
            "notes": notes,
        },
    }


def zip_folder(folder: Path, target: Path) -> Path:
    """Everything below `folder` as a zip at `target`; `folder` is gone afterwards. Times inside are
    the zip format's first: when it was exported is nobody's business."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o600 << 16
            with path.open("rb") as source, archive.open(entry, "w") as inside:
                shutil.copyfileobj(source, inside, 1 << 20)
    shutil.rmtree(folder, ignore_errors=True)
    return target
