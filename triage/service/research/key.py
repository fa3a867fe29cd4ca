"""The key of the pseudonyms: made once, kept by the site, never exported."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from triage.dicom.pseudonyms import KEY_BYTES
from triage.settings import Settings

KEY_NAME = "research.key"


class KeyUnfitError(RuntimeError):
    """The key cannot be used; the text says why and what to do."""


def path_of(settings: Settings) -> Path:
    return (settings.research_key or settings.home / KEY_NAME).expanduser()


def load_key(settings: Settings) -> bytes:
    """The site's key; made at first use, readable by its owner alone. Raises KeyUnfitError.

    Another key gives other pseudonyms: what was exported before no longer belongs together.
    """
    path = path_of(settings)
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
        shared = path.stat().st_mode & 0o077
    except OSError as error:
        raise KeyUnfitError(f"{path} cannot be read: {error.strerror}. Look at it.") from error
    if len(key) < KEY_BYTES or shared:
        raise KeyUnfitError(
            f"Expected {KEY_BYTES} bytes or more in {path} that only their owner may read, got "
            f"{len(key)} and mode {path.stat().st_mode & 0o777:o}: chmod 600, or restore the file."
        )
    return key


def _make(path: Path) -> None:
    """Whole or not at all; of several processes at once, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return
    finally:
        part.unlink(missing_ok=True)
