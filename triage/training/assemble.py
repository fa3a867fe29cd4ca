"""From trained networks, cutoffs and a card to a bundle."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from triage.decision.table import CutoffTable, neutral
from triage.inference.crops import LOW_HU, STEP, VIEWS
from triage.nets.bundle import SUFFIXES
from triage.nets.bundle_writer import write_bundle
from triage.nets.localiser import Localiser
from triage.nets.sequence_head import SequenceHeads
from triage.nets.slice_net import SliceEnsembles
from triage.nets.volume_net import VolumeNet
from triage.training.cache import SPACING
from triage.training.evaluation.prevalence import natural
from triage.types import TARGETS, Organ, Target


def neutral_table() -> CutoffTable:
    """Cutoffs of a draft that has not been calibrated: nothing is ruled out."""
    return CutoffTable("simulated", {t: neutral(share) for t, share in natural().items()})


def mean_dice(path: Path) -> dict[str, float]:
    """Mean Dice of each organ in a table of `scoring.score_all`."""
    rows = list(csv.DictReader(path.open(newline="")))
    out = {}
    for organ in Organ:
        values = [float(r[organ.value]) for r in rows if r[organ.value]]
        if values:
            out[organ.value] = round(float(np.mean(values)), 4)
    return out


def write(
    folder: Path,
    *,
    version: str,
    localiser: Localiser,
    slices: SliceEnsembles,
    volume: VolumeNet,
    cutoffs: CutoffTable,
    provenance: Mapping[str, Any],
    card: str,
    extra: Mapping[str, bytes],
    sequence: SequenceHeads | None = None,
    name: str = "reference",
) -> Path:
    """Write the bundle with fp16 weights; its prevalence is that of the cutoffs."""
    nets: dict[str, nn.Module] = {"localiser": localiser, "slices": slices, "volume": volume}
    networks: dict[str, dict[str, Any]] = {
        "localiser": dict(localiser.architecture),
        "slices": {
            "kind": "MobileNetV2",
            "members": _short(slices.members),
            "shared": _short(slices.shared),
            "padding": slices.padding,
            "size": _short(slices.size),
            "pooling": slices.pooling,
        },
        "volume": dict(volume.architecture),
    }
    if sequence is not None:
        nets["sequence"] = sequence
        networks["sequence"] = dict(sequence.architecture)
    skip = "num_batches_tracked"
    tensors = {
        f"{key}.safetensors": {k: v for k, v in net.state_dict().items() if skip not in k}
        for key, net in nets.items()
    }
    networks = {key: {**data, "file": f"{key}.safetensors"} for key, data in networks.items()}
    preprocessing = {
        "working_spacing_mm": list(SPACING),
        "slice_step": STEP,
        "low_hu": LOW_HU,
        "views": {
            t.value: [{"field_mm": v.field_mm, "high_hu": v.high_hu} for v in VIEWS[t]]
            for t in TARGETS
        },
    }
    return write_bundle(
        folder,
        name=name,
        version=version,
        calibrated_on="real" if cutoffs.calibrated_on == "real" else "simulated",
        prevalence={t: entry.prevalence for t, entry in cutoffs.targets.items()},
        networks=networks,
        preprocessing=preprocessing,
        tensors=tensors,
        cutoffs=cutoffs.to_dict(),
        provenance=provenance,
        card=card,
        extra=extra,
        half=True,
        overwrite=True,
    )


def _short(numbers: Mapping[Target, int]) -> int | dict[str, int]:
    """One number where all targets have the same."""
    values = set(numbers.values())
    return values.pop() if len(values) == 1 else {t.value: n for t, n in numbers.items()}


def to_json(data: Any) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()


def files_of(folder: Path, prefix: str = "evaluation") -> dict[str, bytes]:
    """The files of an evaluation as a bundle takes them: path -> content."""
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    return {f"{prefix}/{p.name}": p.read_bytes() for p in found}
