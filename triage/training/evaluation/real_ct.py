"""What a bundle says of real CTs, and where its localiser draws their organs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from triage.dicom import decode, open_study
from triage.imaging.resample import from_grid, to_grid
from triage.imaging.volume import straightened, to_volume
from triage.inference.localise import localise
from triage.inference.networks import Networks
from triage.nets.bundle import read_manifest
from triage.pipeline import analyse
from triage.settings import Settings
from triage.simulate.background import to_tissues
from triage.simulate.tissues import ORGAN_TISSUES
from triage.training.scoring import overlap
from triage.types import ORGAN_LABEL, TARGETS, Organ

Row = dict[str, Any]


def organ_dice(nets: Networks, ct: Path, labels: Path, options: Settings) -> dict[Organ, float]:
    """Dice of the localiser on the voxels of a CT, for the organs that `labels` holds.

    `labels`: NIfTI of the same voxels, ids as in `triage.simulate.background` (117 structures, or
    1-4: spleen, right kidney, left kidney, liver).
    """
    with open_study(ct, options) as study:
        volume = straightened(to_volume(decode(study.series[0], options)))
    anatomy = localise(nets, to_grid(volume))
    found = from_grid(anatomy.labels, volume, labels=True).as_tensor()[0].numpy()  # (X, Y, Z)
    image = nib.as_closest_canonical(nib.load(labels))
    ids = np.rint(np.asarray(image.dataobj)).astype(np.int64)
    voxel_ml = float(abs(np.linalg.det(image.affine[:3, :3]))) / 1000
    truth = to_tissues(ids, voxel_ml, labels.name)[0].numpy()
    out = {}
    for organ, tissues in ORGAN_TISSUES.items():
        wanted = np.isin(truth, [int(t) for t in tissues])
        same = overlap(found == ORGAN_LABEL[organ], wanted)
        if wanted.any() and same is not None:
            out[organ] = same
    return out


def judge_ct(name: str, nets: Networks, ct: Path, labels: Path | None, options: Settings) -> Row:
    """The verdicts on one CT as a row of `metrics["real_ct"]`."""
    report = analyse(ct, networks=nets, settings=options)
    dice = organ_dice(nets, ct, labels, options) if labels else {}
    return {
        "ct": name,
        "bundle": f"{nets.ref.name} {nets.ref.version} ({nets.ref.sha256[:12]})",
        "trained_on": _trained(name, read_manifest(nets.folder).provenance),
        "status": report.status.value,
        "reason": report.reason.code if report.reason else None,
        "targets": {
            t.value: {"verdict": f.verdict.value, "score": f.probability, "reason": f.reason}
            for t, f in report.findings.items()
        },
        "dice": {o.value: round(d, 4) for o, d in dice.items()},
    }


def _trained(name: str, provenance: Mapping[str, Any]) -> bool | None:
    """None where a bundle does not say what it was made from."""
    return name in backgrounds(provenance) if provenance.get("sets") else None


def backgrounds(provenance: Mapping[str, Any]) -> set[str]:
    """Backgrounds of all sets that a bundle and its base were made from, but those left out."""
    own = {
        b
        for made in (provenance.get("sets") or {}).values()
        for b in made.get("backgrounds", ())
        if b not in (provenance.get("without") or ())
    }
    base = (provenance.get("base") or {}).get("provenance") or {}
    return own | (backgrounds(base) if base else set())


def cells(rows: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Table of such rows: CT, seen in training, a cell for each target, Dice."""
    return [
        [
            row["ct"],
            {True: "yes", False: "no", None: "unknown"}[row["trained_on"]],
            *(_cell(row, t.value) for t in TARGETS),
            ", ".join(f"{o} {d:.2f}" for o, d in row["dice"].items()) or "-",
        ]
        for row in rows
    ]


HEAD = ["CT", "trained on", *(t.value for t in TARGETS), "Dice of the localiser"]


def _cell(row: Mapping[str, Any], target: str) -> str:
    found = row["targets"].get(target)
    if found is None:
        return f"not analysed ({row['reason']})"
    score = "" if found["score"] is None else f" {found['score']:.3f}"
    reason = f" ({found['reason']})" if found["reason"] else ""
    return f"{str(found['verdict']).replace('_', ' ')}{score}{reason}"
