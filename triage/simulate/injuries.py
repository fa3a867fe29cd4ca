"""Injuries after the AAST organ injury scales (Kozar RA et al., J Trauma 2018;85:1119-1122).

Each function changes a `Canvas` in place: HU of the ideal image, and the lesion mask of its target.
Grades: low is AAST I-III, high IV-V. All distances in mm, attenuation in HU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.anatomy import Scene
from triage.simulate.contrast import random_voxels, sub_box
from triage.simulate.fields import Dice, blur, coarse_blur, depth_mm, empty, member, smooth_noise
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


def _offset(xyz: tuple[Tensor, Tensor, Tensor], point: NDArray[np.float64]) -> list[Tensor]:
    return [c - float(p) for c, p in zip(xyz, point, strict=True)]


def _along(d: list[Tensor], direction: NDArray[np.float64]) -> Tensor:
    return d[0] * float(direction[0]) + d[1] * float(direction[1]) + d[2] * float(direction[2])


def _surface_point(
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


def laceration(
    c: Canvas, name: str, target: Target, length: float, *, branches: int = 1, **more: Any
) -> bool:
    """A branching tear from the capsule inwards, `length` deep; filled with blood."""
    found = c.organ(name)
    if found is None:
        return False
    box, organ, depth = found
    start = _surface_point(c, box, depth)
    if start is None:
        return False
    point, inward = start
    xyz = c.local(box)
    spacing = c.scene.grid.spacing
    wave = smooth_noise(c.dice, organ.shape, spacing, 11)
    rough = smooth_noise(c.dice, organ.shape, spacing, 5)
    tear = torch.zeros_like(organ)
    for branch in range(branches + 1):
        reach = length * (1.0 if branch == 0 else c.dice.uniform(0.35, 0.7))
        heading = inward + (0.25 if branch == 0 else 1.1) * c.dice.direction()
        heading /= np.linalg.norm(heading)
        normal = np.cross(heading, c.dice.direction())
        normal /= max(float(np.linalg.norm(normal)), 1e-6)
        root = point if branch == 0 else point + inward * length * c.dice.uniform(0.15, 0.6)
        d = _offset(xyz, root)
        along = _along(d, heading)
        across = _along(d, np.cross(heading, normal))
        off = _along(d, normal) + 3.0 * wave + 1.2 * rough
        thick = c.dice.uniform(2.2, 4.5) * (1.15 - (along / reach).clamp(0, 1))
        wide = reach * c.dice.uniform(0.35, 0.7) * (1.05 - 0.6 * (along / reach).clamp(0, 1))
        tear |= (
            (off.abs() < thick) & (along > -4) & (along < reach) & (across.abs() < wide + 3 * rough)
        )
    tear &= organ
    if float(tear.sum()) * c.scene.grid.voxel_ml < 0.3:
        return False
    c.fill(box, tear, c.blood(box, fresh=c.dice.chance(0.6)))
    c.mark(target, box, tear, "laceration", length_mm=round(length, 1), organ=name, **more)
    return True


def haematoma(c: Canvas, name: str, target: Target, diameter: float, **more: Any) -> bool:
    """An intraparenchymal clot of irregular outline."""
    found = c.organ(name)
    if found is None:
        return False
    box, organ, depth = found
    centres = random_voxels(
        organ & (depth > min(5.0, float(depth.max()) * 0.4)), c.scene.grid, c.dice, 1
    )
    if len(centres) == 0:
        return False
    centre = centres[0] + [s.start * p for s, p in zip(box, c.scene.grid.spacing, strict=True)]
    d = _offset(c.local(box), centre)
    radii = [diameter / 2 * c.dice.uniform(0.7, 1.3) for _ in range(3)]
    shape = sum((v / r) ** 2 for v, r in zip(d, radii, strict=True))
    rough = smooth_noise(c.dice, organ.shape, c.scene.grid.spacing, max(6.0, diameter / 3))
    clot = organ & (shape + 0.35 * rough < 1)
    if float(clot.sum()) * c.scene.grid.voxel_ml < 0.3:
        return False
    c.fill(box, clot, c.blood(box))
    c.mark(target, box, clot, "haematoma", diameter_mm=round(diameter, 1), organ=name, **more)
    return True


def subcapsular(
    c: Canvas, name: str, target: Target, thickness: float, spread: float, **more: Any
) -> bool:
    """A crescent of blood under the capsule: `thickness` at its middle, `spread` wide."""
    found = c.organ(name)
    if found is None:
        return False
    box, organ, depth = found
    start = _surface_point(c, box, depth)
    if start is None:
        return False
    d = _offset(c.local(box), start[0])
    away = torch.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
    limit = thickness * (1 - (away / spread) ** 2)
    crescent = organ & (depth < limit) & (depth > -2)
    if float(crescent.sum()) * c.scene.grid.voxel_ml < 0.5:
        return False
    c.fill(box, crescent, c.blood(box))
    c.mark(
        target,
        box,
        crescent,
        "subcapsular_haematoma",
        thickness_mm=round(thickness, 1),
        organ=name,
        **more,
    )
    return True


def devascularised(c: Canvas, name: str, target: Target, share: float, **more: Any) -> bool:
    """A wedge without enhancement, its tip at the hilum: `share` of the organ."""
    if c.phase is Phase.PLAIN:
        return laceration(c, name, target, 45, branches=3, **more)
    found = c.organ(name)
    if found is None:
        return False
    box, organ, depth = found
    xyz = c.local(box)
    centre = np.array([float(v[organ].mean()) for v in xyz])
    direction = c.dice.direction()
    rough = smooth_noise(c.dice, organ.shape, c.scene.grid.spacing, 12)
    score = _along(_offset(xyz, centre), direction) + 4 * rough
    limit = float(torch.quantile(score[organ][::5], 1 - share))
    wedge = organ & (score > limit) & (depth > -1)
    plain = 38.0 if name.startswith("kidney") else 48.0
    c.fill(box, wedge, plain + 3 * rough)
    rim = wedge & (depth < 2.5)
    c.hu[box][rim] += 25  # capsular arteries keep a cortical rim
    c.mark(target, box, wedge, "devascularised", share=round(share, 2), organ=name, **more)
    return True


def perirenal(c: Canvas, name: str, thickness: float, **more: Any) -> bool:
    """Blood in the fat around a kidney."""
    found = c.organ(name)
    if found is None:
        return False
    box, _, _ = found
    pad = round(thickness / c.scene.grid.spacing[0]) + 3
    x, y, z = (slice(max(s.start - pad, 0), s.stop + pad) for s in box)
    wide = (x, y, z)
    mask = member(c.scene.labels[wide], ORGAN[name])
    depth = depth_mm(mask, c.scene.grid.spacing)
    fat = c.scene.labels[wide] == int(Tissue.FAT)
    rough = smooth_noise(c.dice, mask.shape, c.scene.grid.spacing, 14)
    side = _along(list(c.local(wide)), c.dice.direction())
    side = (side - side.mean()) / side.std().clamp_min(1e-6)
    blood = fat & (depth < 0) & (depth > -thickness * (0.5 + 0.5 * rough + 0.4 * side))
    if float(blood.sum()) * c.scene.grid.voxel_ml < 2:
        return False
    c.fill(wide, blood, c.blood(wide))
    _strand(c, wide, fat & ~blood & (depth > -thickness * 1.6), 0.5)
    c.mark(Target.KIDNEY, wide, blood, "perirenal_haematoma", organ=name, **more)
    return True


def _strand(c: Canvas, box: Box, fat: Tensor, strength: float) -> None:
    """Stranding: streaky rise of the fat's attenuation."""
    streak = smooth_noise(c.dice, fat.shape, c.scene.grid.spacing, 4.5)
    base = 55 * strength
    c.hu[box][fat] += (base + 40 * strength * streak[fat]).clamp(0, 110)


def extravasation(c: Canvas, where: NDArray[np.float64], diameter: float, **more: Any) -> bool:
    """A blush as bright as the aorta, irregular, within a haematoma of mixed attenuation."""
    if c.phase is Phase.PLAIN:
        return False
    if c.phase is Phase.DELAYED:
        diameter *= c.dice.uniform(1.2, 1.7)  # it grows and fades
    reach = diameter * 2.2
    box = c.scene.grid.box(tuple(where), reach)
    if empty(box):
        return False
    d = _offset(c.local(box), where)
    radii = [diameter / 2 * c.dice.uniform(0.6, 1.5) for _ in range(3)]
    shape = sum((v / r) ** 2 for v, r in zip(d, radii, strict=True))
    spacing = c.scene.grid.spacing
    rough = smooth_noise(c.dice, d[0].shape, spacing, max(4.0, diameter / 3.5))
    free = ~member(
        c.scene.labels[box],
        (Tissue.BONE, Tissue.VERTEBRA, Tissue.GAS, Tissue.LUNG, Tissue.AIR, Tissue.AORTA),
    )
    blush = free & (shape + 0.55 * rough < 1)
    if float(blush.sum()) * c.scene.grid.voxel_ml < 0.04:
        return False
    around = free & (shape / c.dice.uniform(3.0, 5.5) + 0.4 * rough < 1) & ~blush
    c.fill(box, around, c.blood(box))
    level = c.table[Tissue.AORTA] * c.dice.uniform(0.75, 1.02)
    mixed = level * (1 - 0.18 * (shape + 0.5 * rough).clamp(0, 1))
    c.fill(box, blush, mixed)
    c.mark(Target.EXTRAVASATION, box, blush, "blush", diameter_mm=round(diameter, 1), **more)
    return True


def bowel_wall(
    c: Canvas, where: NDArray[np.float64], length: float, thickness: float, **more: Any
) -> bool:
    """A segment of thick wall with stranding of its mesentery."""
    box = c.scene.grid.box(tuple(where), length)
    if empty(box):
        return False
    labels = c.scene.labels[box]
    gut = member(labels, GUT)
    d = _offset(c.local(box), where)
    away = torch.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
    depth = depth_mm(gut, c.scene.grid.spacing)
    near = away < length * (0.75 + 0.12 * smooth_noise(c.dice, gut.shape, c.scene.grid.spacing, 15))
    fat = labels == int(Tissue.FAT)
    thick = near & (
        (gut & (depth < thickness * 0.6)) | (fat & (depth > -thickness * 0.4) & (depth < 0))
    )
    if float(thick.sum()) * c.scene.grid.voxel_ml < 1.0:
        return False
    bright = c.dice.uniform(40, 65) if c.dice.chance(0.6) else c.table[Tissue.BOWEL_WALL] + 15
    c.fill(box, thick, bright + 6 * smooth_noise(c.dice, gut.shape, c.scene.grid.spacing, 5))
    _strand(c, box, fat & near & ~thick, c.dice.uniform(0.5, 1.0))
    c.mark(Target.BOWEL, box, thick, "wall_thickening", thickness_mm=round(thickness, 1), **more)
    return True


def mesenteric(c: Canvas, where: NDArray[np.float64], diameter: float, **more: Any) -> bool:
    """Blood between the leaves of the mesentery with stranding around; follows the fat."""
    box = c.scene.grid.box(tuple(where), diameter)
    if empty(box):
        return False
    fat = c.scene.labels[box] == int(Tissue.FAT)
    d = _offset(c.local(box), where)
    away = torch.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
    rough = smooth_noise(c.dice, fat.shape, c.scene.grid.spacing, 9)
    blood = fat & (away < diameter / 2 * (1 + 0.45 * rough))
    if float(blood.sum()) * c.scene.grid.voxel_ml < 1.0:
        return False
    c.fill(box, blood, c.blood(box))
    _strand(c, box, fat & (away < diameter * 0.9) & ~blood, c.dice.uniform(0.4, 0.9))
    c.mark(Target.BOWEL, box, blood, "mesenteric_haematoma", diameter_mm=round(diameter, 1), **more)
    return True


def free_air(c: Canvas, pockets: int, **more: Any) -> bool:
    """Free gas where it rises to: under the anterior wall and around the liver."""
    cavity = peritoneal_fat(c.scene)
    box = sub_box(cavity, 0)
    if box is None:
        return False
    y = c.scene.grid.axis(1)[box[1]][None, :, None].expand(cavity[box].shape)
    region = cavity[box]
    front = torch.where(region, y, torch.tensor(-1e4)).amax(1, keepdim=True)
    anterior = region & (y > front - 7) & (front > float(y[region].median()))
    points = random_voxels(anterior, c.scene.grid, c.dice, pockets)
    done = False
    for p in points:
        where = p + [s.start * q for s, q in zip(box, c.scene.grid.spacing, strict=True)]
        small = c.scene.grid.box(tuple(where), 22)
        fat = cavity[small]
        d = _offset(c.local(small), where)
        radii = (c.dice.uniform(3, 16), c.dice.uniform(2, 5), c.dice.uniform(3, 12))
        shape = sum((v / r) ** 2 for v, r in zip(d, radii, strict=True))
        gas = fat & (shape + 0.3 * smooth_noise(c.dice, fat.shape, c.scene.grid.spacing, 5) < 1)
        if int(gas.sum()) < 3:
            continue
        c.fill(small, gas, -900.0)
        c.mark(Target.BOWEL, small, gas, "free_air", **more)
        done = True
    return done


def peritoneal_fat(scene: Scene) -> Tensor:
    """Fat of the peritoneal cavity: near its organs, not in the wall or behind the kidneys."""
    inner = (
        Tissue.LIVER,
        Tissue.SPLEEN,
        Tissue.STOMACH_WALL,
        Tissue.BOWEL_WALL,
        Tissue.COLON_WALL,
        Tissue.GALLBLADDER,
    )
    near = coarse_blur(member(scene.labels, inner), scene.grid, 9.0)
    retro = (Tissue.CORTEX_RIGHT, Tissue.CORTEX_LEFT, Tissue.VERTEBRA, Tissue.MUSCLE, Tissue.SKIN)
    behind = coarse_blur(member(scene.labels, retro), scene.grid, 9.0)
    fat = scene.labels == int(Tissue.FAT)
    return fat & (near > 0.12) & (behind < 0.35)


def free_fluid(c: Canvas, amount: float, hu: float) -> Tensor | None:
    """Fluid in the recesses, dependent first: Morison's pouch, perisplenic, gutters, pelvis.

    `amount` in (0, 1]: from a trace to filling the recesses. Returns its mask, or None.
    """
    cavity = peritoneal_fat(c.scene)
    box = sub_box(cavity, 0)
    if box is None:
        return None
    region = cavity[box]
    solid = member(c.scene.labels, (Tissue.LIVER, Tissue.SPLEEN))
    near = coarse_blur(solid, c.scene.grid, 6.0)[box]
    axes = [c.scene.grid.axis(d)[box[d]] for d in range(3)]
    y = (axes[1] - axes[1].mean()) / axes[1].std().clamp_min(1e-6)
    z = (axes[2] - axes[2].mean()) / axes[2].std().clamp_min(1e-6)
    x = (axes[0] - axes[0].mean()).abs() / axes[0].std().clamp_min(1e-6)
    low = -0.8 * y[None, :, None] + 0.6 * (z[None, None, :].abs()) + 0.3 * x[:, None, None]
    score = low + 3.0 * near + 0.7 * smooth_noise(c.dice, region.shape, c.scene.grid.spacing, 25)
    limit = float(torch.quantile(score[region][::11], 1 - 0.5 * amount))
    fluid = region & (score > limit)
    soft = blur(fluid, c.scene.grid.spacing, 1.5) > 0.5
    fluid = soft & region
    if float(fluid.sum()) * c.scene.grid.voxel_ml < 5:
        return None
    uneven = smooth_noise(c.dice, region.shape, c.scene.grid.spacing, 18)
    c.fill(box, fluid, hu + 3 * uneven)
    whole = torch.zeros(c.hu.shape, dtype=torch.bool)
    whole[box] = fluid
    return whole
