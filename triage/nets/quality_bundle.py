"""The networks of the quality checks on disk: a folder of its own beside the bundles.

    quality.json      the manifest: name, version, sha256 of each file, limits, reference features
    *.safetensors     weights and the features' reference
    MODEL_CARD.md     what they learned from and what was measured

It is apart from the bundle that answers: either may be replaced without the other.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from triage.nets.bundle import (
    INSTALLED,
    MAX_MANIFEST_BYTES,
    REPOSITORY_MODELS,
    BundleError,
    is_plain_path,
    one_line,
    refuse_links,
    require_finite,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from triage.nets.quality_nets import OrientationNet, RegionNet

MANIFEST = "quality.json"
NAME = "quality"
WEIGHTS = "quality.safetensors"
CARD = "MODEL_CARD.md"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class QualityManifest(BaseModel):
    """quality.json. `limits`: named thresholds that were fitted with the networks."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal["1"]
    name: str
    version: str
    orientation_width: int = Field(ge=4, le=64)
    region_width: int = Field(ge=4, le=64)
    limits: dict[str, float]
    provenance: dict[str, str | int | float | list[str]] = Field(default_factory=dict)
    files: dict[str, Sha256]


@dataclass(frozen=True)
class QualityNetworks:
    """Both networks in evaluation mode, and the features' reference.

    `centre` (D,), `whiten` (D, K): a feature f lies |(f - centre) @ whiten| from the training set.
    """

    manifest: QualityManifest
    orientation: OrientationNet
    region: RegionNet
    centre: Tensor
    whiten: Tensor
    device: torch.device


def find_quality() -> Path | None:
    """Folder of the quality networks: the repository's, the wheel's, or None."""
    import importlib.util

    places = [REPOSITORY_MODELS]
    spec = importlib.util.find_spec(INSTALLED)
    if spec is not None and spec.submodule_search_locations:
        places += [Path(p) for p in spec.submodule_search_locations]
    return next((p / NAME for p in places if (p / NAME / MANIFEST).is_file()), None)


def load_quality(folder: Path, device: str = "cpu") -> QualityNetworks:
    """Load both networks; each sha256 is checked before a file is parsed. Raises BundleError."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from triage.nets.quality_nets import OrientationNet, RegionNet

    manifest = read_quality_manifest(folder)
    try:
        tensors = load(_checked(folder, WEIGHTS, manifest))
    except (SafetensorError, ValueError) as error:
        raise BundleError(
            f"safetensors in {WEIGHTS}", one_line(error), "Fetch it again."
        ) from error
    ready = {k: require_finite(v.float(), k, WEIGHTS) for k, v in tensors.items()}
    nets = OrientationNet(manifest.orientation_width), RegionNet(manifest.region_width)
    try:
        for name, net in zip(("orientation", "region"), nets, strict=True):
            own = {k.removeprefix(f"{name}."): v for k, v in ready.items() if k.startswith(name)}
            net.load_state_dict(own)
            net.eval().requires_grad_(False).to(device)
        centre, whiten = ready["reference.centre"], ready["reference.whiten"]
    except (RuntimeError, KeyError) as error:
        raise BundleError(
            f"weights that fit {MANIFEST}", one_line(error), "Write it again."
        ) from error
    return QualityNetworks(manifest, nets[0], nets[1], centre, whiten, torch.device(device))


def read_quality_manifest(folder: Path) -> QualityManifest:
    """Read and validate quality.json. Raises BundleError."""
    refuse_links(folder, MANIFEST)
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(
            f"a readable {folder / MANIFEST}", str(error), "Fetch it again."
        ) from error
    try:
        if len(content) > MAX_MANIFEST_BYTES:
            raise ValueError("the manifest is too large")
        manifest = QualityManifest.model_validate(json.loads(content))
    except (ValidationError, ValueError, RecursionError) as error:
        raise BundleError(
            f"a valid {folder / MANIFEST}", one_line(error), "Write it again."
        ) from error
    if WEIGHTS not in manifest.files or not all(map(is_plain_path, manifest.files)):
        raise BundleError(
            f"plain files with {WEIGHTS}", str(sorted(manifest.files)), "Fetch again."
        )
    return manifest


def _checked(folder: Path, file: str, manifest: QualityManifest) -> bytes:
    refuse_links(folder, file)
    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        raise BundleError(f"a readable {folder / file}", str(error), "Fetch it again.") from error
    came = hashlib.sha256(content).hexdigest()
    if came != manifest.files[file]:
        raise BundleError(f"sha256 {manifest.files[file]} of {file}", came, "Fetch it again.")
    return content
