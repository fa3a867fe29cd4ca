"""From evidence to what people see: saliency maps, key slices and overlays of one series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from monai.data import MetaTensor

from triage.imaging.resample import from_grid
from triage.imaging.volume import straightened
from triage.inference.networks import Networks
from triage.inference.score import Evidence, Looked, organ_mask, smoothed
from triage.saliency.attribution import explain
from triage.saliency.nifti import write_nifti
from triage.saliency.overlay import contact_sheet, draw_overlay, draw_plain
from triage.types import (
    TARGET_ORGANS,
    Anatomy,
    Finding,
    KeySlice,
    Target,
    Verdict,
    Volume,
)

KEY_SLICES = 3
APART_MM = 12.0  # key slices show different places


def illustrate(
    nets: Networks,
    volume: Volume,
    anatomy: Anatomy,
    evidence: Evidence,
    findings: Mapping[Target, Finding],
    weights: Mapping[Target, tuple[float, float]],
    out: Path,
) -> dict[Target, Finding]:
    """Explain findings of one series: writes saliency_<target>.nii.gz and overlays below `out`.

    Returns the findings with key slices and file names filled in. A target that is not assessed
    gets an overlay that says so.
    """
    folder = out / "overlays"
    folder.mkdir(parents=True, exist_ok=True)
    name = "score" if nets.ref.calibrated_on == "simulated" else "probability"
    straight = straightened(volume)  # what the networks saw; voxel by voxel the same
    done = {}
    for target, finding in findings.items():
        if finding.verdict is Verdict.NOT_ASSESSED:
            file = f"overlays/{target.value}.png"
            draw_overlay(volume, finding, None, None, out / file, bundle=nets.ref, score_name=name)
            done[target] = replace(finding, overlays=(file,))
            continue
        grid_map = explain(nets, evidence, anatomy, target, weights[target])
        saliency = MetaTensor(from_grid(grid_map, straight).as_tensor(), affine=volume.hu.affine)
        mask = MetaTensor(
            organ_mask(anatomy, TARGET_ORGANS[target])[None].to(torch.uint8),
            affine=anatomy.labels.affine,
        )
        organs = from_grid(mask, straight, labels=True)
        organs = MetaTensor(organs.as_tensor(), affine=volume.hu.affine)
        file = f"saliency_{target.value}.nii.gz"
        write_nifti(saliency, out / file)
        keys = key_slices(evidence.looked[target], grid_map, straight)
        files = []
        for rank, key in enumerate(keys if finding.flagged else keys[:1]):
            stem = target.value if rank == 0 else f"{target.value}_{rank + 1}"
            files.append(f"overlays/{stem}.png")
            draw_overlay(
                volume,
                replace(finding, key_slices=keys),
                saliency,
                key.index,
                out / files[-1],
                bundle=nets.ref,
                score_name=name,
                organ_mask=organs,
            )
            draw_plain(volume, target, key.index, folder / f"{stem}_plain.png")
        done[target] = replace(finding, key_slices=keys, saliency=file, overlays=tuple(files))
    first = [out / done[t].overlays[0] for t in Target if t in done and done[t].overlays]
    if first:
        contact_sheet(first, folder / "contact_sheet.png")
    return done


def key_slices(looked: list[Looked], grid_map: MetaTensor, volume: Volume) -> tuple[KeySlice, ...]:
    """The slices that carry the decision, strongest first; scores are members' mean, 0 to 1.

    `index` counts the volume's slices from the patient's feet.
    """
    affine = torch.as_tensor(grid_map.affine, dtype=torch.float64)
    inverse = torch.linalg.inv(torch.as_tensor(volume.hu.affine, dtype=torch.float64))
    step = float(affine[2, 2])
    found: list[tuple[float, int, torch.Tensor]] = []
    for view in looked:
        x, y = view.region.centre
        for z, logit in zip(view.slices, smoothed(view.logits).tolist(), strict=True):
            point = affine @ torch.tensor([x, y, float(z), 1.0], dtype=torch.float64)
            found.append((logit, z, point))
    found.sort(key=lambda item: -item[0])
    chosen: list[tuple[float, int, torch.Tensor]] = []
    for item in found:
        if all(abs(item[1] - other[1]) * step >= APART_MM for other in chosen):
            chosen.append(item)
        if len(chosen) == KEY_SLICES:
            break
    return tuple(_key(logit, inverse @ point, volume) for logit, _, point in chosen)


def _key(logit: float, index: torch.Tensor, volume: Volume) -> KeySlice:
    k = min(max(round(float(index[2])), 0), int(volume.hu.shape[3]) - 1)
    instance = volume.instances[k] if volume.instances else None
    score = float(torch.sigmoid(torch.tensor(logit)))
    return KeySlice(
        sop_instance_uid=instance.sop_instance_uid if instance else "",
        instance_number=instance.instance_number if instance else None,
        index=k,
        score=round(score, 4),
    )
