"""Harmless things that look like injuries; drawn for the injured and the healthy alike."""

from __future__ import annotations

import numpy as np
import torch

from triage.simulate.abdomen import free_fluid
from triage.simulate.canvas import ORGAN, Canvas
from triage.simulate.contrast import random_voxels
from triage.simulate.fields import empty, member, smooth_noise
from triage.simulate.tissues import Tissue
from triage.types import Phase


def cyst(c: Canvas, name: str) -> bool:
    """A round, sharp, homogeneous lesion of water."""
    return _round(c, name, c.dice.uniform(4, 18), c.dice.uniform(-2, 18), 0.05, "cyst")


def tumour(c: Canvas, name: str) -> bool:
    """A rounded hypodense mass of a metastasis, softer at its edge."""
    value = c.dice.uniform(45, 85) if c.phase is not Phase.PLAIN else c.dice.uniform(30, 50)
    return _round(c, name, c.dice.uniform(5, 20), value, 0.25, "tumour")


def haemangioma(c: Canvas, name: str) -> bool:
    """A nodule that enhances like a vessel at its rim."""
    if c.phase is Phase.PLAIN:
        return tumour(c, name)
    value = 0.8 * c.table[Tissue.AORTA]
    return _round(c, name, c.dice.uniform(5, 15), value, 0.4, "haemangioma", rim=True)


def _round(
    c: Canvas, name: str, radius: float, value: float, rough: float, kind: str, rim: bool = False
) -> bool:
    found = c.organ(name)
    if found is None:
        return False
    box, organ, depth = found
    points = random_voxels(organ & (depth > 2), c.scene.grid, c.dice, 1)
    if len(points) == 0:
        return False
    centre = points[0] + [s.start * q for s, q in zip(box, c.scene.grid.spacing, strict=True)]
    small = c.scene.grid.box(tuple(centre), radius * 1.4)
    x, y, z = c.local(small)
    shape = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / radius**2
    noise = smooth_noise(c.dice, shape.shape, c.scene.grid.spacing, max(5.0, radius / 2))
    inside = member(c.scene.labels[small], ORGAN[name])
    if name.startswith("kidney"):  # exophytic cysts are common
        inside |= c.scene.labels[small] == int(Tissue.FAT)
    body = inside & (shape + rough * noise < 1)
    if int(body.sum()) < 4:
        return False
    if rim:
        body_in = body & (shape + 0.5 * noise < 0.55)
        c.fill(small, body, value)
        c.fill(small, body_in, c.dice.uniform(50, 70))
    else:
        c.fill(small, body, value + 2.5 * noise)
    c.lesions.append({"target": None, "kind": kind, "organ": name, "radius_mm": round(radius, 1)})
    return True


def cleft(c: Canvas, name: str) -> bool:
    """A smooth, thin, fat-filled indentation of the surface (splenic cleft, hepatic fissure)."""
    found = c.organ(name)
    if found is None:
        return False
    box, organ, depth = found
    shell = organ & (depth < 3)
    points = random_voxels(shell, c.scene.grid, c.dice, 1)
    if len(points) == 0:
        return False
    p = points[0] + [s.start * q for s, q in zip(box, c.scene.grid.spacing, strict=True)]
    x, y, z = c.local(box)
    normal = c.dice.direction()
    off = (x - p[0]) * normal[0] + (y - p[1]) * normal[1] + (z - p[2]) * normal[2]
    away = torch.sqrt((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2)
    reach = c.dice.uniform(10, 25)
    gap = organ & (off.abs() < 1.8 * (1 - away / reach)) & (away < reach)
    c.fill(box, gap, c.table[Tissue.FAT] + c.dice.uniform(0, 40))
    c.lesions.append({"target": None, "kind": "cleft", "organ": name})
    return True


def ascites(c: Canvas) -> bool:
    """Water in the recesses, without any injury."""
    done = free_fluid(c, c.dice.uniform(0.05, 0.6), c.dice.uniform(0, 16)) is not None
    if done:
        c.lesions.append({"target": None, "kind": "ascites"})
    return done


def clips(c: Canvas) -> bool:
    """Metal clips and calcifications: small and far brighter than blood."""
    points = random_voxels(c.hu > -150, c.scene.grid, c.dice, c.dice.integer(1, 4))
    for p in points:
        small = c.scene.grid.box(tuple(p), c.dice.uniform(1.5, 3.5))
        if not empty(small):
            c.hu[small] = c.dice.uniform(500, 2500)
    c.lesions.append({"target": None, "kind": "clip"})
    return True


def add_all(c: Canvas) -> None:
    """Draw look-alikes at their usual frequencies."""
    d = c.dice
    for name in ("liver", "spleen", "kidney_right", "kidney_left"):
        often = {"liver": 0.3, "spleen": 0.1}.get(name, 0.25)
        for _ in range(int(np.clip(d.rng.poisson(often), 0, 3))):
            cyst(c, name)
    for _ in range(int(d.rng.poisson(0.25))):
        tumour(c, "liver" if d.chance(0.8) else "spleen")
    if d.chance(0.12):
        haemangioma(c, "liver" if d.chance(0.8) else "spleen")
    for name in ("spleen", "liver"):
        if d.chance(0.3):
            cleft(c, name)
    if d.chance(0.08):
        ascites(c)
    if d.chance(0.08):
        clips(c)
