"""Both networks into one folder, with the reference of their features and the card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from triage.files import write_atomic
from triage.imaging.coarse import cube
from triage.nets.quality_bundle import (
    CARD,
    MANIFEST,
    NAME,
    WEIGHTS,
    QualityManifest,
    QualityNetworks,
)
from triage.nets.quality_nets import OrientationNet, RegionNet
from triage.training.checkpoint import read
from triage.training.pose import people
from triage.training.pose.tasks import is_trunk

KEPT = 24  # directions of the features' covariance
VERSION = "0.1.0"


def last_weights(path: Path) -> dict[str, Tensor]:
    """The weights at the end of a training: the cycle ends at its lowest rate, which is best."""
    weights: dict[str, Tensor] = read(path)["net"]
    return weights


def networks(folder: Path) -> QualityNetworks:
    """Networks of a training folder, without a reference of features."""
    nets = OrientationNet(), RegionNet()
    for name, net in zip(("orientation", "region"), nets, strict=True):
        path = folder / f"{name}.pt"
        if path.is_file():
            net.load_state_dict(last_weights(path))
        net.eval().requires_grad_(False)
    blank = QualityManifest(
        schema_version="1",
        name=NAME,
        version=VERSION,
        orientation_width=16,
        region_width=16,
        limits={},
        files={},
    )
    size = nets[0].head.in_features
    ways = torch.zeros(size), torch.eye(size)
    return QualityNetworks(blank, nets[0], nets[1], *ways, torch.device("cpu"))


@torch.no_grad()
def reference(nets: QualityNetworks, found: Sequence[people.Person]) -> tuple[Tensor, Tensor]:
    """Centre (D,) and whitening (D, K) of the features of whole scans.

    The K directions of greatest variance, each scaled to a standard deviation of 1; what varies
    less is left out: there the covariance of a few hundred scans is no more than noise.
    """
    features = []
    for person in found:
        if is_trunk(person):
            x = cube(torch.from_numpy(person.hu.astype(np.float32)))
            features.append(nets.orientation.features(x[None])[0])
    f = torch.stack(features)  # (N, D)
    centre = f.mean(0)
    _, spread, ways = torch.linalg.svd(f - centre, full_matrices=False)
    kept = min(KEPT, len(f) - 1)
    sd = (spread[:kept] / (len(f) - 1) ** 0.5).clamp_min(1e-4)
    return centre, ways[:kept].T / sd


def write(work: Path, out: Path, card: str = "", limits: dict[str, float] | None = None) -> Path:
    """Write the folder `out` (quality.json last: what is there is whole)."""
    from safetensors.torch import save

    nets = networks(work / "all")
    found = people.load(work / "people")
    centre, whiten = reference(nets, found)
    tensors: dict[str, Tensor] = {
        "reference.centre": centre,
        "reference.whiten": whiten.contiguous(),
    }
    for name, net in (("orientation", nets.orientation), ("region", nets.region)):
        for key, value in net.state_dict().items():
            tensors[f"{name}.{key}"] = value.half() if value.ndim > 1 else value
    files = {WEIGHTS: bytes(save(tensors)), CARD: (card or _card(found)).encode()}
    manifest: dict[str, Any] = {
        "schema_version": "1",
        "name": NAME,
        "version": VERSION,
        "orientation_width": 16,
        "region_width": 16,
        "limits": limits or {},
        "provenance": {
            "scans": len(found),
            "people": len({p.name.split("_")[0] for p in found}),
            "anatomies": sorted({p.anatomy for p in found}),
        },
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    QualityManifest.model_validate(manifest)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(out / name, content)
    write_atomic(out / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    return out


def _card(found: Sequence[people.Person]) -> str:
    anatomies = ", ".join(sorted({p.anatomy for p in found}))
    return f"""# Quality networks {VERSION}
Research use only - not for clinical use.

Two small networks that see which way round a CT of the trunk lies, and which part of the body its
slices show. They learned from {len(found)} simulated scans (anatomies: {anatomies}) and from drawn
slices of heads and limbs; no real CT was used. `reference.*` describes the features of those scans.

- orientation: 3 x 44^3 voxels of 9 mm -> how canonical; asked about 48 turns
- region: axial slices, 96 x 96 pixels of 4.5 mm -> head, chest, abdomen, pelvis, thigh; level

What was measured, and on what, stands in docs/QUALITY.md. A left-right mirrored scan and situs
inversus look the same to them. Children, prone patients and amputations were not tested.
"""
