"""Harmless things in and around the solid organs that look like injuries.

Drawn for the injured and the healthy alike, before any injury. Each differs from an injury in a way
that a reader uses: cysts are round, sharp and watery; tumours are round with a rim; clefts are
smooth and hold fat; ascites is water; fat in the liver spares its vessels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate import incidental
from triage.simulate.canvas import ORGAN, Canvas
from triage.simulate.contrast import random_voxels
from triage.simulate.fields import depth_mm, empty, member
from triage.simulate.fluid import free_fluid
from triage.simulate.shapes import Box, component, distance, offset, soft
from triage.simulate.solid import enter, family
from triage.simulate.spaces import peritoneal_fat
from triage.simulate.tissues import Tissue
from triage.types import Phase

Point = NDArray[np.float64]


def add_all(c: Canvas) -> None:
    """Draw look-alikes at their usual frequencies."""
    for organ in ORGAN:
        for _ in range(_times(c, f"cyst.rate.{family(organ)}")):
            cyst(c, organ)
    for _ in range(_times(c, "tumour.rate")):
        organ = "liver" if c.dice.chance(0.8) else "spleen"
        for _ in range(c.count("tumour.count") if organ == "liver" else 1):
            tumour(c, organ)
    for name in ("spleen", "liver"):
        if c.chance("cleft.p"):
            cleft(c, name)
    liver_fat(c)
    for key, add in (SOMETIMES | incidental.SOMETIMES).items():
        if c.chance(key):
            add(c)


def _times(c: Canvas, key: str) -> int:
    return int(np.clip(c.dice.rng.poisson(c.ranges[key].low), 0, 3))


def cyst(c: Canvas, name: str) -> bool:
    """A round, sharp, homogeneous lesion of water."""
    place = _ball(c, name, c.draw("cyst.radius_mm"), 0.05)
    if place is None:
        return False
    box, inside, shape = place
    edit = c.edit(box)
    edit.blend(torch.where(inside, soft(shape, 0.7), 0.0), c.draw("cyst.hu"))
    return c.apply(edit, "cyst", organ=name)


def tumour(c: Canvas, name: str) -> bool:
    """A round metastasis: darker than the organ, with a brighter rim and a dark middle."""
    place = _ball(c, name, c.draw("tumour.radius_mm"), 0.12)
    if place is None:
        return False
    box, inside, shape = place
    edit = c.edit(box)
    around = edit.before[inside].median()
    loss = c.draw("tumour.loss_hu") * (0.4 if c.phase is Phase.PLAIN else 1.0)
    value = (
        around - loss * (1.0 - 0.45 * soft((shape + 2.0).abs() - 1.0, 1.0)) + 2.5 * c.noise(box, 5)
    )
    edit.blend(torch.where(inside, soft(shape, 1.8), 0.0), value)
    return c.apply(edit, "tumour", organ=name)


def haemangioma(c: Canvas) -> bool:
    """Nodules at the rim that enhance like a vessel; it fills in later."""
    name = "liver" if c.dice.chance(0.8) else "spleen"
    place = _ball(c, name, c.draw("haemangioma.radius_mm"), 0.1)
    if place is None:
        return False
    box, inside, shape = place
    edit = c.edit(box)
    edit.blend(torch.where(inside, soft(shape, 0.8), 0.0), 42.0 + 2 * c.noise(box, 6))
    if c.phase is not Phase.PLAIN:
        depth = {Phase.ARTERIAL: 2.5, Phase.PORTAL_VENOUS: 4.5}.get(c.phase, 12.0)
        rim = inside & (shape > -depth) & (shape < 0) & (c.noise(box, 7) > -0.3)
        edit.blend(0.95 * rim.float(), 0.9 * c.table[Tissue.AORTA])
    return c.apply(edit, "haemangioma", organ=name)


def _ball(c: Canvas, name: str, radius: float, rough: float) -> tuple[Box, Tensor, Tensor] | None:
    """A ball in an organ: box, where it may be, signed distance from its border (mm)."""
    found = c.organ(name)
    if found is None:
        return None
    box, organ, depth = found
    points = random_voxels(organ & (depth > 2), c.scene.grid, c.dice, 1)
    if len(points) == 0:
        return None
    centre = points[0] + [s.start * q for s, q in zip(box, c.scene.grid.spacing, strict=True)]
    small = c.scene.grid.box(tuple(centre), radius * 1.4 + 3)
    inside = member(c.scene.labels[small], ORGAN[name])
    if name.startswith("kidney"):  # cysts of the kidney often stand out of it
        inside = inside | c.inner_fat[small]
    if int(inside.sum()) < 4:
        return None
    away = distance(c.local(small), centre)
    wavy = rough * radius * c.noise(small, max(5.0, radius / 2))
    return small, inside, away - radius + wavy


def cleft(c: Canvas, name: str) -> bool:
    """A smooth, thin indentation of the surface that holds fat (splenic cleft, fissure)."""
    reach = c.draw("cleft.depth_mm")
    start = enter(c, name, reach + 6)
    if start is None:
        return False
    d = offset(c.local(start.box), start.point)
    normal = np.cross(start.inward, c.dice.direction())
    normal /= max(float(np.linalg.norm(normal)), 1e-6)
    bend = component(d, start.inward) * c.dice.uniform(-0.25, 0.25)
    away = torch.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
    half = 0.5 * c.draw("cleft.width_mm") * (1.2 - away / reach)
    gap = torch.maximum((component(d, normal) + bend).abs() - half, away - reach)
    edit = c.edit(start.box)
    edit.blend(torch.where(start.organ, soft(gap, 0.7), 0.0), c.table[Tissue.FAT] + 15)
    return c.apply(edit, "cleft", organ=name)


def ascites(c: Canvas) -> bool:
    """Water in the recesses, without any injury."""
    return free_fluid(c, c.draw("ascites.amount"), c.draw("ascites.hu"), "ascites")


def liver_fat(c: Canvas) -> bool:
    """Fat spares, or collects, beside gallbladder and falciform ligament; vessels run through."""
    found = c.organ("liver")
    if found is None:
        return False
    box, organ, _ = found
    level = float(c.hu[box][organ].median())
    veins = c.table[Tissue.PORTAL]
    fatty = level < (45 if c.phase is Phase.PLAIN else min(85.0, veins - 60))
    if not c.chance("sparing.p" if fatty else "focal_fat.p"):
        return False
    near = member(c.scene.labels[box], (Tissue.GALLBLADDER, Tissue.FAT))
    edge = organ & (depth_mm(near, c.scene.grid.spacing, 2) > -6)
    points = random_voxels(edge, c.scene.grid, c.dice, 1)
    if len(points) == 0:
        return False
    where = points[0] + [s.start * q for s, q in zip(box, c.scene.grid.spacing, strict=True)]
    radius = c.draw("sparing.radius_mm")
    small = c.scene.grid.box(tuple(where), 1.5 * radius)
    tissue = c.scene.labels[small] == int(Tissue.LIVER)  # not the vessels
    share = soft(distance(c.local(small), where) - radius * (1 + 0.3 * c.noise(small, 14)), 3.5)
    change = c.dice.uniform(15, 35) if fatty else -c.draw("focal_fat.loss_hu")
    edit = c.edit(small)
    edit.blend(torch.where(tissue, share, 0.0), edit.before + change)
    return c.apply(edit, "focal_sparing" if fatty else "focal_fat", organ="liver")


def periportal(c: Canvas) -> bool:
    """Oedema along the portal branches: thin, even, on both sides of them."""
    found = c.organ("liver")
    if found is None:
        return False
    box, organ, _ = found
    portal = c.scene.labels[box] == int(Tissue.PORTAL)
    if int((portal & organ).sum()) < 50:
        return False
    away = -depth_mm(portal, c.scene.grid.spacing)
    tissue = organ & ~member(c.scene.labels[box], (Tissue.PORTAL, Tissue.VEIN))
    edit = c.edit(box)
    share = 0.85 * soft(away - c.draw("periportal.reach_mm"), 1.0)
    edit.blend(torch.where(tissue, share, 0.0), c.draw("periportal.hu"))
    return c.apply(edit, "periportal_oedema", organ="liver")


def splenule(c: Canvas) -> bool:
    """A small round ball of spleen beside the spleen; enhances as it does."""
    found = c.organ("spleen")
    if found is None:
        return False
    box, organ, depth = found
    near = c.inner_fat[box] & (depth > -14) & (depth < -3)
    points = random_voxels(near, c.scene.grid, c.dice, 1)
    if len(points) == 0:
        return False
    where = points[0] + [s.start * q for s, q in zip(box, c.scene.grid.spacing, strict=True)]
    radius = c.draw("splenule.radius_mm")
    small = c.scene.grid.box(tuple(where), radius + 4)
    edit = c.edit(small)
    share = soft(distance(c.local(small), where) - radius, 0.8)
    edit.blend(torch.where(c.inner_fat[small], share, 0.0), float(c.hu[box][organ].median()))
    return c.apply(edit, "splenule")


def septa(c: Canvas) -> bool:
    """Bridging septa and haze around both kidneys, as in many older people."""
    rise, done = c.draw("septa.hu"), False
    for name in ("kidney_right", "kidney_left"):
        found = c.organ(name)
        if found is None:
            continue
        box, _, depth = found
        if empty(box):
            continue
        edit = c.edit(box)
        c.strand(edit, c.inner_fat[box], soft(-depth - 12, 4.0), rise)
        done |= c.apply(edit, "perirenal_septa", organ=name)
    return done


def misty(c: Canvas) -> bool:
    """Even haze of the mesentery without streaks or fluid."""
    cavity = peritoneal_fat(c.scene, c.inner_fat)
    points = random_voxels(cavity, c.scene.grid, c.dice, 1)
    if len(points) == 0:
        return False
    box = c.scene.grid.box(tuple(points[0]), 55)
    edit = c.edit(box)
    share = soft(distance(c.local(box), points[0]) - 38 + 5 * c.noise(box, 20), 8.0)
    edit.blend(torch.where(cavity[box], share, 0.0), edit.before + c.draw("misty.hu"))
    return c.apply(edit, "misty_mesentery")


SOMETIMES: dict[str, Callable[[Canvas], bool]] = {
    "haemangioma.p": haemangioma,
    "periportal.p": periportal,
    "splenule.p": splenule,
    "septa.p": septa,
    "misty.p": misty,
    "ascites.p": ascites,
}
