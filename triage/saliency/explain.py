"""From evidence to what people see: saliency maps, key slices and overlays of one series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from triage.decision.table import CutoffTable
from triage.imaging.masks import occupied
from triage.imaging.planes import Planes
from triage.imaging.resample import grid_positions
from triage.imaging.volume import straightened
from triage.inference.networks import Networks
from triage.inference.score import Evidence, organ_mask
from triage.saliency.attribution import SUSPECTED, Places, place_logits, signed
from triage.saliency.drawing import Frame
from triage.saliency.names import SHEETS
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
LEAST_SCALE = 0.5  # magnitude of full colour, at least
STRONGEST_MM2 = 100.0  # of a slice, whose mean logit ranks it
LOWEST = -30.0  # logit of what lies away from the organs


def illustrate(
    nets: Networks,
    volume: Volume,
    anatomy: Anatomy,
    evidence: Evidence,
    findings: Mapping[Target, Finding],
    table: CutoffTable,
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
        target = finding.target
        places = place_logits(nets, evidence, anatomy, target, table.branch_weights(target))
        grid_map = signed(places, anatomy, speaks_for=speaks_for(finding, table))
        keys = key_slices(places, grid_map, drawn.straight)
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
    return done


def full_colour(grid_map: MetaTensor) -> float:
    """Magnitude of full colour of a map: what is weak looks weak."""
    return max(saliency_scale(grid_map), LEAST_SCALE)


def speaks_for(finding: Finding, table: CutoffTable) -> float:
    """How much the score of a finding speaks for the injury (see `signed`)."""
    if finding.flagged:
        return SUSPECTED
    if finding.probability is None:
        return 0.0
    return table.evidence(finding.target, finding.probability)


def write_sheets(findings: Mapping[Target, Finding], out: Path) -> None:
    """The first overlay of every target on one page below `out`: PNG and PDF."""
    first = [out / findings[t].overlays[0] for t in Target
             if t in findings and findings[t].overlays]  # fmt: skip
    if first:
        contact_sheet(first, *(out / name for name in SHEETS))


@dataclass(frozen=True)
class Drawing:
    """Writes the pictures and maps of one series below `out`. `straight`: what the networks saw;
    voxel by voxel the same as `volume`."""

    bundle: BundleRef
    volume: Volume
    straight: Volume
    frame: Frame
    out: Path
    note: str = ""  # burnt into the overlays' corner

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
        saliency = map_planes(grid_map, self.volume, self.straight)
        file = write_map(saliency, finding.target, self.out)
        return replace(self.pictures(finding, grid_map, saliency, anatomy), saliency=file)

    def pictures(
        self, finding: Finding, grid_map: MetaTensor, saliency: Planes, anatomy: Anatomy
    ) -> Finding:
        """An overlay with its unmarked twin for each key slice. `saliency`: planes of the map."""
        target, keys = finding.target, finding.key_slices
        scale = full_colour(grid_map)
        organs = self._organs(target, anatomy, [key.index for key in keys])
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
                note=self.note,
            )
            plain = self.out / f"overlays/{stem}_plain.png"
            draw_plain(self.volume, target, key.index, plain, frame=self.frame)
        return replace(finding, overlays=tuple(files))

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


def map_planes(grid_map: MetaTensor, volume: Volume, straight: Volume) -> Planes:
    """A map of the working grid on the volume's voxels."""
    saliency = Planes(grid_map, straight)
    saliency.affine = volume.hu.affine
    return saliency


def write_map(saliency: Planes, target: Target, out: Path) -> str:
    """A map as NIfTI below `out`; returns the file's name."""
    name = f"saliency_{target.value}.nii.gz"
    write_nifti(saliency, out / name)
    return name


def key_slices(places: Places | None, grid: MetaTensor, volume: Volume) -> tuple[KeySlice, ...]:
    """The slices that carry the decision, strongest first.

    The score of a slice, 0 to 1, is that of its strongest square centimetre. `grid`: anything on
    the working grid, `volume` along its axes. `index` counts the volume's slices from the feet.
    """
    if places is None or not bool(places.near.any()):
        return ()
    step = float(grid.affine[2, 2])
    logits = places.logits.masked_fill(~places.near, LOWEST).flatten(0, 1)  # (X Y, Z)
    count = max(1, round(STRONGEST_MM2 / float(grid.affine[0, 0] * grid.affine[1, 1])))
    profile = logits.topk(min(count, len(logits)), dim=0).values.mean(0)  # (Z,)
    inside = occupied(places.near)[2]
    chosen: list[int] = []
    for k in profile.argsort(descending=True).tolist():
        if inside[k] and all(abs(k - other) * step >= APART_MM for other in chosen):
            chosen.append(k)
        if len(chosen) == KEY_SLICES:
            break
    affine, low = torch.as_tensor(grid.affine, dtype=torch.float64), places.box[2].start
    inverse = torch.linalg.inv(torch.as_tensor(volume.hu.affine, dtype=torch.float64))
    found = []
    for k in chosen:
        point = affine @ torch.tensor([0.0, 0.0, float(low + k), 1.0], dtype=torch.float64)
        found.append(_key(float(profile[k]), inverse @ point, volume))
    return tuple(found)


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
