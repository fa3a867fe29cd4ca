"""Injuries outside the solid organs: active extravasation, bowel, mesentery, free air and fluid.

Each function changes a `Canvas` in place: HU of the ideal image, and the lesion mask of its target;
False (or None) where it found no room. All distances in mm, attenuation in HU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.canvas import GUT, Canvas, offset
from triage.simulate.contrast import random_voxels, sub_box
from triage.simulate.fields import blur, coarse_blur, depth_mm, empty, member, smooth_noise
from triage.simulate.scene import Scene
from triage.simulate.tissues import Tissue
from triage.types import Phase, Target


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
    d = offset(c.local(box), where)
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
    d = offset(c.local(box), where)
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
    c.strand(box, fat & near & ~thick, c.dice.uniform(0.5, 1.0))
    c.mark(Target.BOWEL, box, thick, "wall_thickening", thickness_mm=round(thickness, 1), **more)
    return True


def mesenteric(c: Canvas, where: NDArray[np.float64], diameter: float, **more: Any) -> bool:
    """Blood between the leaves of the mesentery with stranding around; follows the fat."""
    box = c.scene.grid.box(tuple(where), diameter)
    if empty(box):
        return False
    fat = c.scene.labels[box] == int(Tissue.FAT)
    d = offset(c.local(box), where)
    away = torch.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
    rough = smooth_noise(c.dice, fat.shape, c.scene.grid.spacing, 9)
    blood = fat & (away < diameter / 2 * (1 + 0.45 * rough))
    if float(blood.sum()) * c.scene.grid.voxel_ml < 1.0:
        return False
    c.fill(box, blood, c.blood(box))
    c.strand(box, fat & (away < diameter * 0.9) & ~blood, c.dice.uniform(0.4, 0.9))
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
        d = offset(c.local(small), where)
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
