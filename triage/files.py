"""Files that are either whole or absent, even when the machine stops in between."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, data: bytes) -> Path:
    """Write `data` to `path` by way of a temporary neighbour: temporary name, fsync, rename.

    Raises OSError (disk full, no permission); then neither `path` nor the temporary file changed
    or remains.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return path


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file through to the disk. Raises FileExistsError, and OSError (disk full)."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable (POSIX wants the folder synced, too)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def organs_name(number: int) -> str:
    """File of the organ labels of a report's series `number`, counted from 1."""
    return f"organs_{number}.nii.gz"
