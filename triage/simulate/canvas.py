"""The canvas: a patient while injuries and look-alikes are put in, and the geometry they share.

All distances in mm, attenuation in HU, coordinates RAS+.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.contrast import sub_box
from triage.simulate.fields import Dice, coarse_blur, depth_mm, member, smooth_noise
from triage.simulate.scene import Scene
from triage.simulate.tissues import Tissue
from triage.types import Phase, Target

Box = tuple[slice, slice, slice]

ORGAN: dict[str, tuple[Tissue, ...]] = {
    "liver": (Tissue.LIVER, Tissue.PORTAL, Tissue.VEIN),
    "spleen": (Tissue.SPLEEN,),
    "kidney_right": (Tissue.CORTEX_RIGHT, Tissue.MEDULLA_RIGHT),
    "kidney_left": (Tissue.CORTEX_LEFT, Tissue.MEDULLA_LEFT),
}
GUT = (Tissue.BOWEL_WALL, Tissue.BOWEL_CONTENT, Tissue.COLON_WALL, Tissue.COLON_CONTENT, Tissue.GAS)


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
    _organs: dict[str, tuple[Box, Tensor, Tensor] | None] = field(default_factory=dict)

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
        if int(mask.sum()) * self.scene.grid.voxel_ml < 12:
            return None
        box = sub_box(mask, 6)
        if box is None:
            return None
        factor = 2 if name == "liver" else 1
        return box, mask[box], depth_mm(mask[box], self.scene.grid.spacing, factor)

    def mark(self, target: Target, box: Box, mask: Tensor, kind: str, **more: Any) -> None:
        """Add a lesion to the target's mask and to the truth."""
        whole = self.masks.setdefault(target, torch.zeros(self.hu.shape, dtype=torch.bool))
        whole[box] |= mask
        ml = float(mask.sum()) * self.scene.grid.voxel_ml
        self.lesions.append({"target": target.value, "kind": kind, "ml": round(ml, 2), **more})

    def blood(self, box: Box, fresh: bool = False) -> Tensor:
        """HU of blood in a box: clot 45-70, unclotted 30-45, uneven."""
        low, high = (30, 45) if fresh else (38, 62)
        shape = self.hu[box].shape
        uneven = smooth_noise(self.dice, shape, self.scene.grid.spacing, 9)
        return self.dice.uniform(low, high) + 5.0 * uneven

    def fill(self, box: Box, mask: Tensor, value: Tensor | float) -> None:
        region = self.hu[box]
        if isinstance(value, Tensor):
            region[mask] = value[mask]
        else:
            region[mask] = value

    def local(self, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        """World coordinates of a box's voxels, each (x, y, z), mm."""
        axes = [self.scene.grid.axis(d)[box[d]] for d in range(3)]
        x, y, z = torch.meshgrid(*axes, indexing="ij")
        return x, y, z

    def strand(self, box: Box, fat: Tensor, strength: float) -> None:
        """Stranding: streaky rise of the fat's attenuation."""
        streak = smooth_noise(self.dice, fat.shape, self.scene.grid.spacing, 4.5)
        base = 55 * strength
        self.hu[box][fat] += (base + 40 * strength * streak[fat]).clamp(0, 110)


def offset(xyz: tuple[Tensor, Tensor, Tensor], point: NDArray[np.float64]) -> list[Tensor]:
    """Coordinates (x, y, z) relative to a point, mm."""
    return [c - float(p) for c, p in zip(xyz, point, strict=True)]


def component(d: list[Tensor], direction: NDArray[np.float64]) -> Tensor:
    """Component of offsets along a unit vector, mm."""
    return d[0] * float(direction[0]) + d[1] * float(direction[1]) + d[2] * float(direction[2])


def surface_point(
    c: Canvas, box: Box, depth: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """A point on the capsule and the unit vector inwards."""
    shell = (depth > 0) & (depth < 4)
    if not bool(shell.any()):
        return None
    where = shell.nonzero()
    ijk = where[c.dice.integer(0, len(where) - 1)].numpy()
    gradient = np.zeros(3)
    for d in range(3):
        up, down = ijk.copy(), ijk.copy()
        up[d] = min(ijk[d] + 3, depth.shape[d] - 1)
        down[d] = max(ijk[d] - 3, 0)
        gradient[d] = float(depth[tuple(up)] - depth[tuple(down)]) / c.scene.grid.spacing[d]
    norm = np.linalg.norm(gradient)
    inward = gradient / norm if norm > 1e-6 else c.dice.direction()
    return c.scene.grid.world(ijk + [s.start for s in box]), inward
