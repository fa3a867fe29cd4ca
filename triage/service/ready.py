"""What must be in order before a study can be taken and analysed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triage.service.service import Service

FREE_BYTES = 256 << 20  # about one study; below this the next one may not fit


def checks(service: Service) -> dict[str, str]:
    """Name of each check -> "ok", or what is wrong."""
    parts = service.intake.checks()
    return {
        "database": service.records.check(),
        "disk": disk(service.home),
        "bundle": service.bundle.check(),
        "worker": service.working(),
        "dicom": parts.pop("receiver"),
        "intake": "; ".join(text for text in parts.values() if text != "ok") or "ok",
    }


def disk(home: Path) -> str:
    if not os.access(home, os.W_OK):
        return "the home cannot be written"
    free = shutil.disk_usage(home).free
    return "ok" if free >= FREE_BYTES else f"only {free >> 20} MB are free"


class Bundle:
    """Checks the weights against their sha256; hashes again only when a file changed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._good: object = None

    def check(self) -> str:
        """ "ok", or what is wrong with the bundle."""
        from triage.nets.bundle import BundleError, find_bundle, verify

        try:
            folder = find_bundle(self.name)
            stamp = _stamp(folder)
            if stamp != self._good:
                verify(folder)
                self._good = stamp
        except (BundleError, OSError) as error:
            self._good = None
            return str(error)
        return "ok"


def _stamp(folder: Path) -> list[tuple[str, int, int, int]]:
    """Name, size, time and inode of each file: what changes when a file is swapped."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    stats = [(p.name, p.stat()) for p in files]
    return [(name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats]
