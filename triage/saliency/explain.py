"""From evidence to what people see: saliency maps, key slices and overlays of one series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from triage.imaging.planes import Planes
from triage.imaging.resample import grid_positions
from triage.imaging.volume import straightened
from triage.inference.networks import Networks
from triage.inference.score import Evidence, Looked, organ_mask, smoothed
from triage.saliency.attribution import explain
from triage.saliency.drawing import Frame
from triage.saliency.nifti import write_nifti
from triage.saliency.overlay import ROOM, contact_sheet, draw_overlay, draw_plain, saliency_scale
from triage.saliency.scene import Scene
from triage.types import (
    TARGET_ORGANS,
    Anatomy,
    BundleRef,
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
    scene: Scene | None = None,
) -> dict[Target, Finding]:
    """Explain findings of one series: writes saliency_<target>.nii.gz and overlays below `out`.

    Returns the findings with key slices and file names filled in. A target that is not assessed
    gets an overlay that says so. `scene` takes maps and surfaces for a viewer.
    """
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    frame = Frame.around_body(volume, ROOM)
    drawn = Drawing(nets.ref, volume, straightened(volume), frame, out)

    def one(finding: Finding) -> Finding:
        if finding.verdict is Verdict.NOT_ASSESSED:
            return drawn.not_assessed(finding)
        grid_map = explain(nets, evidence, anatomy, finding.target, weights[finding.target])
        keys = key_slices(evidence.looked[finding.target], grid_map, drawn.straight)
        if scene is not None:
            scene.hot(finding, grid_map)
        return drawn.assessed(replace(finding, key_slices=keys), grid_map, anatomy)

    # Drawing and compressing give up the interpreter's lock for most of their time.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        surfaces = pool.submit(scene.organs, anatomy) if scene is not None else None
        done = dict(zip(findings, pool.map(one, findings.values()), strict=True))
        if scene is not None and surfaces is not None:
            surfaces.result()
            scene.close()
    first = [out / done[t].overlays[0] for t in Target if t in done and done[t].overlays]
    if first:
        contact_sheet(first, out / "overlays" / "contact_sheet.png")
    return done


@dataclass(frozen=True)
class Drawing:
    """Writes the pictures and maps of one series below `out`. `straight`: what the networks saw;
    voxel by voxel the same as `volume`."""

    bundle: BundleRef
    volume: Volume
    straight: Volume
    frame: Frame
    out: Path

    @property
    def score_name(self) -> str:
        return "score" if self.bundle.calibrated_on == "simulated" else "probability"

    def not_assessed(self, finding: Finding) -> Finding:
        """A picture that says why."""
        file = f"overlays/{finding.target.value}.png"
        draw_overlay(
            self.volume,
            finding,
            None,
            None,
            self.out / file,
            bundle=self.bundle,
            score_name=self.score_name,
            frame=self.frame,
        )
        return replace(finding, overlays=(file,))

    def assessed(self, finding: Finding, grid_map: MetaTensor, anatomy: Anatomy) -> Finding:
        """The map as NIfTI, and an overlay with its unmarked twin for each key slice."""
        target, keys = finding.target, finding.key_slices
        saliency = Planes(grid_map, self.straight)
        saliency.affine = self.volume.hu.affine
        file = f"saliency_{target.value}.nii.gz"
        write_nifti(saliency, self.out / file)
        organs = self._organs(target, anatomy, [key.index for key in keys])
        scale = saliency_scale(grid_map)
        files = []
        for rank, key in enumerate(keys if finding.flagged else keys[:1]):
            stem = target.value if rank == 0 else f"{target.value}_{rank + 1}"
            files.append(f"overlays/{stem}.png")
            draw_overlay(
                self.volume,
                finding,
                self._stack(saliency, key.index),
                key.index,
                self.out / files[-1],
                bundle=self.bundle,
                score_name=self.score_name,
                organ_mask=self._stack(organs, key.index),
                scale=scale,
                frame=self.frame,
            )
            plain = self.out / f"overlays/{stem}_plain.png"
            draw_plain(self.volume, target, key.index, plain, frame=self.frame)
        return replace(finding, saliency=file, overlays=tuple(files))

    def _organs(self, target: Target, anatomy: Anatomy, slices: Sequence[int]) -> Planes:
        """The target's organs on the volume's voxels, right in `slices` alone."""
        mask = organ_mask(anatomy, TARGET_ORGANS[target])[None].to(torch.uint8)
        wanted = MetaTensor(mask, affine=anatomy.labels.affine)
        positions = grid_positions(wanted, self.straight)
        if positions is not None:
            z = np.rint(positions[2][list(slices)]).clip(0, mask.shape[3] - 1).astype(int).tolist()
            shown = torch.zeros_like(mask)
            shown[..., z] = mask[..., z]
            wanted = MetaTensor(shown, affine=anatomy.labels.affine)
        return Planes(wanted, self.straight, labels=True)

    def _stack(self, planes: Planes, k: int) -> MetaTensor:
        """An image on the volume's voxels that shows slice k everywhere; it takes one slice."""
        shown = planes.whole_slice(k)[None, :, :, None].expand(self.volume.hu.shape)
        return MetaTensor(shown, affine=self.volume.hu.affine)


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
