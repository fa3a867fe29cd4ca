"""open_study(): from a path to the series that may be analysed."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..reasons import NotAnalysed
from ..types import Study
from . import child, files, gate, series
from .archive import MAX_FILES
from .headers import from_rows
from .stack import decode_slices

if TYPE_CHECKING:
    from ..settings import Settings

READ_HEADERS = "triage.dicom.headers:read_headers"
UNZIP = "triage.dicom.archive:unzip"

MAX_FOLDER_DEPTH = 32
# Modalities of objects that belong to a CT study and show nothing (PS3.3 C.7.3.1.1.1).
NO_IMAGES = frozenset({"SR", "PR", "KO", "DOC", "PLAN", "REG"})


@contextmanager
def open_study(source: Path, settings: Settings) -> Iterator[Study]:
    """The study in `source`, with the series that passed the gate, preferred ones first.

    `source`: a folder of DICOM of any nesting (other files are ignored), one DICOM file, a zip of
    them, or one NIfTI, NRRD or MHA file. What a zip holds is unpacked into a temporary folder,
    which is removed on leaving, so series must be decoded before. Series that were refused beside
    good ones are named in `Study.warnings`, and so are images of other kinds.

    One input is one study. A folder with images of two studies is refused (MIXED_PATIENT, or
    MIXED_ACQUISITIONS if the patient is the same): which one was meant cannot be known.

    Raises FileNotFoundError, and NotAnalysed with the code of `reasons.REASONS` for the fault of
    the largest series.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"No such file or folder: {source}")
    kind = None if source.is_dir() else files.kind_of(source)
    if kind:
        yield files.open_file(source, kind, settings)
    elif source.is_file() and _is_zip(source):
        with tempfile.TemporaryDirectory(prefix="triage-") as folder:
            _unpack(source, Path(folder), settings)
            yield _open_dicom(_listed(Path(folder), settings), settings)
    elif source.is_dir() or source.is_file():
        yield _open_dicom(_listed(source, settings), settings)
    else:
        raise NotAnalysed("UNREADABLE", "neither a file nor a folder")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(132)
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06") and head[128:] != b"DICM"


def _listed(source: Path, settings: Settings) -> list[Path]:
    """Regular files below `source`, sorted. Raises NotAnalysed: UNREADABLE, TOO_LARGE."""
    found, size = [], 0
    for path in [source] if source.is_file() else _walk(source):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            found.append(path)
            size += status.st_size
        if len(found) > MAX_FILES:
            raise NotAnalysed("TOO_LARGE", f"more than {MAX_FILES} files")
        if size > settings.max_bytes:
            raise NotAnalysed("TOO_LARGE", f"more than {settings.max_bytes} bytes")
    if not found:
        raise NotAnalysed("UNREADABLE", "the folder is empty")
    return sorted(found)


def _walk(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        if len(Path(where).relative_to(folder).parts) > MAX_FOLDER_DEPTH:
            raise NotAnalysed("TOO_LARGE", f"folders nested more than {MAX_FOLDER_DEPTH} deep")
        folders.sort()
        for name in names:
            path = Path(where) / name
            if path.exists():  # no dangling link
                yield path


def _open_dicom(paths: list[Path], settings: Settings) -> Study:
    answer, _ = child.run(
        READ_HEADERS,
        {
            "paths": [str(p.absolute()) for p in paths],
            "max_bytes": settings.max_bytes,
            "max_slices": settings.max_slices,
        },
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decode_memory_bytes,
    )
    if answer["damaged"]:
        name, code, detail = answer["damaged"][0]
        raise NotAnalysed(code, f"{detail}, file {name}" if len(paths) > 1 else detail)
    slices = from_rows(answer["slices"])
    if not slices:
        if not answer["others"]:
            raise NotAnalysed("UNREADABLE", "no DICOM file found")
        kinds = ", ".join(sorted({str(other)[:64] for other in answer["others"]}))
        raise NotAnalysed("NOT_CT", f"found {kinds}")
    limits = gate.Limits(settings.min_slices, settings.max_slices, settings.max_bytes)
    accepted, refused = series.select(slices, limits)
    if not accepted:
        _name_pixel_fault(refused, settings)
    study = series.as_study(accepted, refused)
    return replace(study, warnings=(*study.warnings, *_left_out(answer["others"])))


def _left_out(others: list[str]) -> list[str]:
    """A slice with a damaged class or modality passes for another kind of object: it is named, lest
    it be missed where it was the first or the last one and leaves no gap."""
    kinds = [str(other)[:64] for other in others if other not in NO_IMAGES]
    named = ", ".join(sorted(set(kinds))[:5])
    return [f"NOT_CT: {len(kinds)} object(s) were not used: {named}"] if kinds else []


def _name_pixel_fault(refused: list[series.Refused], settings: Settings) -> None:
    """Where the only fault is a short series, a fault of its pixels is the better reason."""
    error = series.worst(refused)
    if error.code != "TOO_FEW_SLICES":
        return
    for item in refused:
        if item.error.code == "TOO_FEW_SLICES":
            try:
                decode_slices(item.slices, settings)
            except NotAnalysed as fault:
                raise NotAnalysed(fault.code, fault.detail, error.study_instance_uid) from None


def _unpack(source: Path, folder: Path, settings: Settings) -> None:
    child.run(
        UNZIP,
        {"path": str(source.absolute()), "folder": str(folder), "max_bytes": settings.max_bytes},
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decode_memory_bytes,
        may_write=True,
    )
