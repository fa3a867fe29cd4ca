"""Unpacking a zip in the child process: bounded, and under names of our own making."""

from __future__ import annotations

import errno
import lzma
import mmap
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from ..reasons import NotAnalysed

MAX_FILES = 50_000  # entries of a zip, files of a folder


def unzip(request: dict[str, Any], _out: mmap.mmap | None) -> dict[str, Any]:
    """Task of the child: unpacks regular entries under names of our own making.

    An entry's name is never used as a path, so it cannot point outside. Raises NotAnalysed:
    TOO_LARGE (entries, bytes, or more than 100 times the size of the zip), UNREADABLE.
    """
    source, folder = Path(request["path"]), Path(request["folder"])
    limit = min(request["max_bytes"], max(256 << 20, 100 * source.stat().st_size))
    total = 0
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise NotAnalysed("TOO_LARGE", f"{len(entries)} entries in the zip")
            if sum(entry.file_size for entry in entries) > limit:  # what it admits; it may lie
                raise NotAnalysed("TOO_LARGE", f"unzips to more than {limit} bytes")
            for number, entry in enumerate(entries):
                if entry.is_dir() or stat.S_ISLNK(entry.external_attr >> 16):
                    continue
                suffix = Path(entry.filename).suffix.lower()
                name = f"{number:06d}{suffix if suffix in ('.dcm', '.dicom', '.ima') else ''}"
                with archive.open(entry) as packed, (folder / name).open("wb") as file:
                    while block := packed.read(1 << 20):
                        total += len(block)
                        if total > limit:
                            raise NotAnalysed("TOO_LARGE", f"unzips to more than {limit} bytes")
                        file.write(block)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, EOFError, ValueError) as error:
        raise NotAnalysed("UNREADABLE", f"zip: {type(error).__name__}") from None
    except (NotImplementedError, zlib.error, struct.error, LookupError, lzma.LZMAError) as error:
        raise NotAnalysed("UNREADABLE", f"zip: {type(error).__name__}") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a full disk, say: no fault of the zip
            raise
        # A directory that lies about where it begins makes zipfile seek before the start; damaged
        # bzip2 has no number.
        raise NotAnalysed("UNREADABLE", "zip: its parts are not where it says") from None
    return {"files": len(entries)}
