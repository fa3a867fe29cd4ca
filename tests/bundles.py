"""Bundles with other cutoffs than they were made with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from triage.nets.bundle import CUTOFFS, MANIFEST, read_manifest


def replace_cutoffs(folder: Path, cutoffs: dict[str, Any]) -> None:
    """Another cutoffs.json in a bundle, whose manifest knows of it."""
    content = json.dumps(cutoffs).encode()
    manifest = read_manifest(folder).model_dump(mode="json")
    manifest["files"][CUTOFFS] = hashlib.sha256(content).hexdigest()
    (folder / CUTOFFS).write_bytes(content)
    (folder / MANIFEST).write_text(json.dumps(manifest))
