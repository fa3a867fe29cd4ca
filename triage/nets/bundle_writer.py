"""Writing bundles (see `bundle`): as a whole or not at all, and only what `bundle` could read.

torch is imported only where tensors are written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from triage.files import sync_folder, write_synced
from triage.nets.bundle import (
    CARD,
    CUTOFFS,
    MANIFEST,
    SCHEMA_VERSION,
    BundleError,
    one_line,
    parse_manifest,
    require_finite,
)
from triage.types import Target

if TYPE_CHECKING:
    from torch import Tensor


def write_bundle(
    folder: Path,
    *,
    name: str,
    version: str,
    calibrated_on: Literal["simulated", "real"],
    prevalence: Mapping[Target, float],
    networks: Mapping[str, Mapping[str, Any]],
    preprocessing: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    cutoffs: Mapping[str, Any],
    provenance: Mapping[str, Any],
    card: str,
    extra: Mapping[str, bytes] | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a bundle as a whole or not at all; returns its folder.

    `tensors`: file name (`*.safetensors`) -> tensors. `half` stores floating-point tensors of two
    and more dimensions in fp16; vectors (biases, norm statistics) stay fp32: they cost nothing
    and running variances may underflow. `extra`: further files, for instance `evaluation/roc.png`.
    An existing folder is replaced only with `overwrite`, and only if it is a bundle.
    """
    folder = Path(folder)
    files = {path: _tensor_bytes(content, path, half) for path, content in tensors.items()}
    others = {**(extra or {}), CUTOFFS: _json_bytes(cutoffs), CARD: card.encode()}
    if clash := files.keys() & others.keys():
        raise BundleError("each file once", f"{sorted(clash)} twice", "Rename the weights.")
    files |= others
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": version,
        "calibrated_on": calibrated_on,
        "prevalence": {str(target): value for target, value in prevalence.items()},
        "networks": networks,
        "preprocessing": preprocessing,
        "provenance": provenance,
        "files": {path: hashlib.sha256(files[path]).hexdigest() for path in sorted(files)},
    }
    content = _json_bytes(manifest)
    parse_manifest(content, folder)  # what we could not read, we do not write
    _replace_folder(folder, files | {MANIFEST: content}, overwrite)
    return folder


def _tensor_bytes(tensors: Mapping[str, Tensor], file: str, half: bool) -> bytes:
    from safetensors.torch import save

    ready = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        if half and value.is_floating_point() and value.ndim >= 2:
            value = value.half()
        ready[name] = require_finite(value, name, file).clone().contiguous()
    return bytes(save(ready))


def _json_bytes(data: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise BundleError("plain finite JSON values", one_line(error), "Convert them.") from error


def _replace_folder(folder: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    """Write beside, then rename: a reader sees the old bundle or the new one."""
    if folder.exists() and not (overwrite and (folder / MANIFEST).is_file()):
        raise BundleError(
            f"no folder at {folder}", "one that exists", "Choose another, or allow to overwrite it."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new, old = room / "new", room / "old"
        for path, content in files.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            write_synced(new / path, content)
        if folder.exists():
            folder.replace(old)
        try:
            new.replace(folder)
        except OSError:
            if old.exists():
                old.replace(folder)
            raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(room, ignore_errors=True)
