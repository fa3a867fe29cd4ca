"""Injuries of solid organs, after the AAST organ injury scales.

Kozar RA et al., J Trauma 2018;85:1119-1122.

Each function changes a `Canvas` in place: HU of the ideal image, and the lesion mask of its target;
False where it found no room. All distances in mm, attenuation in HU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from triage.simulate.canvas import ORGAN, Canvas, component, offset, surface_point
from triage.simulate.contrast import random_voxels
from triage.simulate.fields import depth_mm, member, smooth_noise
from triage.simulate.tissues import Tissue
from triage.types import Phase, Target


def laceration(
    c: Canvas, name: str, target: Target, length: float, *, branches: int = 1, **more: Any
) -> bool:
    """A branching tear from the capsule inwards, `length` deep; filled with blood."""
    found = c.organ(name)
    if found is None:
        return False
    box, organ, depth = found
    start = surface_point(c, box, depth)
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
        d = offset(xyz, root)
        along = component(d, heading)
        across = component(d, np.cross(heading, normal))
        off = component(d, normal) + 3.0 * wave + 1.2 * rough
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
    d = offset(c.local(box), centre)
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
    start = surface_point(c, box, depth)
    if start is None:
        return False
    d = offset(c.local(box), start[0])
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
    score = component(offset(xyz, centre), direction) + 4 * rough
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
    side = component(list(c.local(wide)), c.dice.direction())
    side = (side - side.mean()) / side.std().clamp_min(1e-6)
    blood = fat & (depth < 0) & (depth > -thickness * (0.5 + 0.5 * rough + 0.4 * side))
    if float(blood.sum()) * c.scene.grid.voxel_ml < 2:
        return False
    c.fill(wide, blood, c.blood(wide))
    c.strand(wide, fat & ~blood & (depth > -thickness * 1.6), 0.5)
    c.mark(Target.KIDNEY, wide, blood, "perirenal_haematoma", organ=name, **more)
    return True
