"""Compiled networks on disk: one file each, checked before it is used.

The first 32 bytes of a file are the sha256 of the rest. A file that is cut short or changed is
made anew; a folder that cannot be written to is no error, the networks are then compiled by every
process.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from triage import nets

_DIGEST = hashlib.sha256().digest_size


class CompiledCache:
    """Compiled networks by key, below `folder` (None: nothing is kept).

    `identity`: what they depend on besides their key (version, precision, processor). The source
    of the networks counts too: an architecture may change under the same weights.
    """

    def __init__(self, folder: Path | None, identity: str) -> None:
        self.folder, self.identity = folder, identity

    def path(self, key: str) -> Path | None:
        if self.folder is None:
            return None
        text = "\n".join((key, self.identity, _source()))
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.blob"

    def load(self, key: str) -> bytes | None:
        """The stored bytes, or None where there are none or they are damaged."""
        path = self.path(key)
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        told, rest = content[:_DIGEST], content[_DIGEST:]
        return rest if hashlib.sha256(rest).digest() == told else None

    def store(self, key: str, make: Callable[[], bytes]) -> None:
        """Keep the bytes, as a whole or not at all; a full disk or a read-only home is no error."""
        path = self.path(key)
        if path is None:
            return
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            content = make()
            handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(content).digest())
                    file.write(content)
                Path(part).replace(path)
            except OSError:
                Path(part).unlink(missing_ok=True)
                raise


@lru_cache(maxsize=1)
def _source() -> str:
    """sha256 of the source files that say what is computed, and how it is compiled."""
    inference = Path(__file__).resolve().parents[1]
    files = [*Path(next(iter(nets.__path__))).glob("*.py"), inference / "programs.py"]
    digest = hashlib.sha256()
    for file in sorted([*files, *Path(__file__).parent.glob("*.py")]):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
