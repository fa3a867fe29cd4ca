"""The canvas: a patient while injuries and look-alikes are put in.

A change is made on an `Edit`, a copy of a box, and reaches the patient only when the finished
lesion can be seen: volume and contrast are measured first. All distances in mm, attenuation in HU,
coordinates RAS+.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.contrast import centre_of
from triage.simulate.fields import Dice, blur, coarse_blur, depth_mm, empty, member, smooth_noise
from triage.simulate.grain import deepest, regrained
from triage.simulate.ranges import Ranges
from triage.simulate.scene import Scene, sub_box
from triage.simulate.shapes import Box, extent_mm, grown
from triage.simulate.spaces import interior_fat
from triage.simulate.tissues import Tissue
from triage.types import Phase, Target

GRADE = {1: "low", 2: "high"}  # AAST I-III, IV-V: the words of the keys of `Ranges`

ORGAN: dict[str, tuple[Tissue, ...]] = {
    "liver": (Tissue.LIVER, Tissue.PORTAL, Tissue.VEIN),
    "spleen": (Tissue.SPLEEN,),
    "kidney_right": (Tissue.CORTEX_RIGHT, Tissue.MEDULLA_RIGHT),
    "kidney_left": (Tissue.CORTEX_LEFT, Tissue.MEDULLA_LEFT),
}
GUT = (Tissue.BOWEL_WALL, Tissue.BOWEL_CONTENT, Tissue.COLON_WALL, Tissue.COLON_CONTENT, Tissue.GAS)


@dataclass
class Edit:
    """A change in the making: `before` and `after` HU of a box, `lesion` what it is meant to be.

    `kept`: share of the old image that is left in a voxel.
    """

    box: Box
    before: Tensor
    after: Tensor
    lesion: Tensor
    kept: Tensor

    def blend(self, share: Tensor, value: Tensor | float, *, lesion: bool = True) -> None:
        """Mix `share` (0 to 1, of the box's shape) of a value in; shares below 0.03 are dropped."""
        share = torch.where(share < 0.03, 0.0, share)
        self.after = self.after + share * (value - self.after)
        self.kept = self.kept * (1 - share)
        if lesion:
            self.lesion |= share > 0.35


@dataclass
class Canvas:
    """The patient being injured: `hu` (X, Y, Z) ideal image, `masks[target]` bool (X, Y, Z)."""

    scene: Scene
    hu: Tensor
    table: dict[Tissue, float]
    phase: Phase
    dice: Dice
    masks: dict[Target, Tensor] = field(default_factory=dict)
    lesions: list[dict[str, Any]] = field(default_factory=list)
    ranges: Ranges = field(default_factory=Ranges)
    _organs: dict[str, tuple[Box, Tensor, Tensor] | None] = field(default_factory=dict)
    _kept: Tensor | None = None  # share of the scan left in each voxel of a real background

    def draw(self, key: str) -> float:
        """A number from the ranges."""
        return self.ranges.draw(key, self.dice)

    def count(self, key: str) -> int:
        """A whole number from the ranges."""
        return self.ranges.count(key, self.dice)

    def chance(self, key: str) -> bool:
        """Whether something of the ranges happens."""
        return self.ranges.chance(key, self.dice)

    @cached_property
    def inner_fat(self) -> Tensor:
        """Fat inside the abdominal wall: bool (X, Y, Z)."""
        fat = interior_fat(self.scene)
        if self.scene.hu is None:
            return fat
        # a scan's fat is noisy, and strands in it that nobody labelled belong to it
        free = member(self.scene.labels, (Tissue.FAT, Tissue.MUSCLE))
        return free & (blur(fat.float(), self.scene.grid.spacing, 1.6) > 0.4)

    @cached_property
    def middle(self) -> float:
        """x of the spine, mm."""
        spine = centre_of(self.scene, (Tissue.VERTEBRA,))
        if spine is None:  # a background without it: between the kidneys, or of the body
            sides = [centre_of(self.scene, ORGAN[f"kidney_{s}"]) for s in ("right", "left")]
            known = [float(s[0]) for s in sides if s is not None]
            body = float(self.scene.grid.axis(0).mean())
            return float(np.mean(known)) if len(known) == 2 else body
        return float(spine[0])

    def organ(self, name: str) -> tuple[Box, Tensor, Tensor] | None:
        """Box, mask and depth (mm) of an organ within its box; None if too little is there."""
        if name not in self._organs:
            self._organs[name] = self._find(name)
        return self._organs[name]

    def _find(self, name: str) -> tuple[Box, Tensor, Tensor] | None:
        mask = member(self.scene.labels, ORGAN[name])
        if name == "liver":  # veins outside the liver are not liver
            near = coarse_blur(self.scene.labels == int(Tissue.LIVER), self.scene.grid, 5.0) > 0.5
            mask &= near
        if self.scene.known is not None:  # sparse labels stop short of the organ's border
            rest = member(self.scene.labels, (Tissue.MUSCLE, Tissue.BONE))
            mask |= rest & grown(mask, self.scene.grid.spacing, 2.0)
        if int(mask.sum()) * self.scene.grid.voxel_ml < 12:
            return None
        box = sub_box(mask, 6)
        if box is None:
            return None
        factor = 2 if name == "liver" else 1
        return box, mask[box], depth_mm(mask[box], self.scene.grid.spacing, factor)

    def crop(
        self, name: str, centre: NDArray[np.float64], half: float
    ) -> tuple[Box, Tensor, Tensor] | None:
        """As `organ`, only the part within `half` mm of a point."""
        found = self.organ(name)
        if found is None:
            return None
        box, mask, depth = found
        wish = self.scene.grid.box(tuple(centre), half)
        inner, out = [], []
        for have, want in zip(box, wish, strict=True):
            low, high = max(have.start, want.start), min(have.stop, want.stop)
            out.append(slice(low, max(high, low)))
            inner.append(slice(low - have.start, max(high, low) - have.start))
        part = (out[0], out[1], out[2])
        cut = (inner[0], inner[1], inner[2])
        return None if empty(part) else (part, mask[cut], depth[cut])

    def edit(self, box: Box) -> Edit:
        """Begin a change of a box."""
        before = self.hu[box].clone()
        nothing = torch.zeros_like(before, dtype=torch.bool)
        return Edit(box, before, before.clone(), nothing, torch.ones_like(before))

    def put(self, edit: Edit) -> bool:
        """Take a change over; False if it changes nothing."""
        if not bool((edit.after != edit.before).any()):
            return False
        self.hu[edit.box] = edit.after
        if self.scene.hu is not None:
            if self._kept is None:
                self._kept = torch.ones_like(self.hu)
            self._kept[edit.box] *= edit.kept
        return True

    def settle(self) -> None:
        """Make the edited voxels of a real background ready for `patient.blend`."""
        if self.scene.hu is None or self._kept is None:
            return
        found = self.organ("liver") or self.organ("spleen")
        if found is not None:
            block = deepest(self.scene.grid, found[0], found[2])
            self.hu = regrained(self.scene.hu, self.hu, self._kept, self.scene.grid, block)
        self._kept = None

    def apply(self, edit: Edit, kind: str, **more: Any) -> bool:
        """Put a harmless change into the patient; it gets no mask."""
        done = self.put(edit)
        if done:
            self.lesions.append({"target": None, "kind": kind, **more})
        return done

    def finish(
        self,
        edit: Edit,
        host: Tensor,
        target: Target,
        kind: str,
        grade: int,
        *,
        least_ml: str = "visible.ml",
        **more: Any,
    ) -> bool:
        """Put an injury into the patient, its mask and its truth; False if it would not be seen.

        `host`: the tissue of the box that it is compared with. `more`: organ and the like.
        """
        mask = self._visible(edit)
        ml = float(mask.sum()) * self.scene.grid.voxel_ml
        if ml < self.ranges[least_ml].low:
            return False
        contrast = self._contrast(edit, mask, host)
        if abs(contrast) < self.ranges["visible.contrast_hu"].low:
            return False
        self.put(edit)
        whole = self.masks.setdefault(target, torch.zeros_like(self.hu, dtype=torch.bool))
        whole[edit.box] |= mask
        organ = str(more.get("organ", ""))
        if organ.startswith("kidney_"):
            more["side"] = organ.removeprefix("kidney_")
        self.lesions.append(
            {
                "target": target.value,
                "kind": kind,
                "grade": grade,
                "ml": round(ml, 2),
                "diameter_mm": round(extent_mm(mask, self.scene.grid.spacing), 1),
                "contrast_hu": round(contrast, 1),
                **more,
            }
        )
        return True

    def _visible(self, edit: Edit) -> Tensor:
        """What a reader would outline: the part of a change that stands out, without specks."""
        spacing = self.scene.grid.spacing
        change = edit.after - edit.before
        if self.scene.hu is not None:  # the scan's own noise is no contrast
            change = blur(change, spacing, 1.5)
        mask = edit.lesion & (change.abs() >= self.ranges["visible.edge_hu"].low)
        return edit.lesion & (blur(mask.float(), spacing, 1.2) > 0.45)

    def _contrast(self, edit: Edit, mask: Tensor, host: Tensor) -> float:
        """Mean HU of a lesion minus that of its host just around, on the ideal image."""
        spacing = self.scene.grid.spacing
        free = host & ~grown(mask, spacing, 1.5)
        for lesions in self.masks.values():
            free &= ~lesions[edit.box]
        ring = free & grown(mask, spacing, 7.0)
        for where in (ring, free):
            if int(where.sum()) >= 20:
                return float(edit.after[mask].mean() - edit.after[where].mean())
        return float(edit.after[mask].mean() - edit.before[mask].mean())

    def blood(self, edit: Edit, host: Tensor, clotted: bool | None = None) -> Tensor:
        """HU of blood in a box, uneven; a level that can be told from the host if there is one."""
        name = "clotted" if clotted or (clotted is None and self.chance("blood.clotted_p")) else ""
        key = f"blood.{name or 'unclotted'}_hu"
        around = float(edit.before[host].median()) if bool(host.any()) else -100.0
        least = 2.0 * self.ranges["visible.contrast_hu"].low
        level = self.draw(key)
        for _ in range(6):
            if abs(level - around) >= least:
                break
            level = self.draw(key)
        else:  # blood like its host: fresh or clotted, whatever is farther off
            ends = (self.ranges["blood.unclotted_hu"].low, self.ranges["blood.clotted_hu"].high)
            level = max(ends, key=lambda end: abs(end - around))
        spacing = self.scene.grid.spacing
        shape = edit.before.shape
        uneven = smooth_noise(self.dice, shape, spacing, 14) + 0.6 * smooth_noise(
            self.dice, shape, spacing, 6
        )
        return level + self.draw("blood.uneven_hu") * uneven.clamp(-2, 2)

    def noise(self, box: Box, scale_mm: float) -> Tensor:
        """Smooth noise of unit sd on a box."""
        shape = [s.stop - s.start for s in box]
        return smooth_noise(self.dice, shape, self.scene.grid.spacing, scale_mm)

    def local(self, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        """World coordinates of a box's voxels, each (x, y, z), mm."""
        axes = [self.scene.grid.axis(d)[box[d]] for d in range(3)]
        x, y, z = torch.meshgrid(*axes, indexing="ij")
        return x, y, z

    def strand(
        self, edit: Edit, fat: Tensor, reach: Tensor, rise: float, *, lesion: bool = False
    ) -> None:
        """Stranding: streaks and haze in the fat; `reach` 0 to 1 says how much of it where."""
        a, b = self.noise(edit.box, 4.0), self.noise(edit.box, 11.0)
        streak = (1.2 - 2.2 * a.abs()).clamp(0, 1)  # thin sheets where the noise crosses zero
        haze = (0.35 + 0.3 * b).clamp(0, 1)
        more = rise * reach.clamp(0, 1) * (streak + haze)
        edit.after = torch.where(fat, edit.after + more.clamp(0, 115), edit.after)
        if lesion:
            edit.lesion |= fat & (more > 0.5 * rise)
