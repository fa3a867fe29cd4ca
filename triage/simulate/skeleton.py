"""The skeleton of a parametric person: spine, ribs, sternum, pelvis, femora."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from triage.simulate.fields import bump, empty
from triage.simulate.painter import Painter
from triage.simulate.tissues import Tissue
from triage.simulate.trunk import spine_line

SEGMENT = 35.0  # mm from vertebra to vertebra
WALL = (Tissue.FAT, Tissue.MUSCLE)


def paint_spine(p: Painter) -> None:
    """Vertebrae with arch, processes and canal; discs; L5 to T8."""
    box = p.region((-62, -135, -86), (62, -25, 300), 6)
    if empty(box):
        return
    x, y, z = p.local(box)
    x = x.abs()
    y = y - spine_line(p)[:, :, box[2]]  # from the centre of the bodies
    phase = torch.remainder(z + 17, SEGMENT)  # 0 to 7 disc, then the vertebra from below
    lumbar = ((140 - z) / 60).clamp(0, 1)
    above = z > -84
    body = ((x / (19.5 + 5 * lumbar)) ** 2 + (y / (15.5 + 1.5 * lumbar)) ** 2) * (
        1 + 0.13 * torch.sin(math.pi * (phase - 7) / 28).clamp_min(0)
    ) < 1
    body &= ((x / 14) ** 2 + ((y + 21) / 8) ** 2 > 1) & above
    arch = (x / 19) ** 2 + ((y + 26) / 15) ** 2 < 1
    arch &= (y < -9) & (phase > 9) & (phase < 29) & above & (y > -42)
    facet = ((x - 15) / 7.5) ** 2 + ((y + 31) / 8) ** 2 < 1
    facet &= ((phase < 10) | (phase > 26)) & above
    slope = torch.remainder(z + 17 - (y + 45) * (0.25 + 0.55 * (1 - lumbar)), SEGMENT)
    spinous = (x < 3.4) & (y < -38) & (y > -64 - 3 * lumbar) & (slope > 9) & (slope < 26) & above
    bend = y + 20 + 0.2 * x + (1 - lumbar) * 0.3 * x
    transverse = (x > 12) & (x < 30 + 12 * lumbar) & (bend.abs() < 3.6)
    transverse &= ((phase - 21).abs() < 5) & above
    p.paint(box, body, Tissue.VERTEBRA)
    p.paint(box, body & (phase < 6.5), Tissue.DISC)
    p.paint(box, arch | facet | spinous | transverse, Tissue.VERTEBRA, WALL)
    canal = (x / 11) ** 2 + ((y + 24) / 8.5) ** 2
    p.paint(box, (canal < 1) & (z > -100), Tissue.FAT)
    p.paint(box, (canal < 0.62) & (z > -100), Tissue.SOFT)
    root = (x > 9) & (x < 20) & (y < -10) & (y > -26) & ((phase - 3).abs() < 7) & above
    p.paint(box, root, Tissue.FAT, (Tissue.VERTEBRA,))  # foramina
    p.paint(box, (canal < 0.62) & (z > -100), Tissue.SOFT)


def paint_ribs(p: Painter) -> None:
    """Ribs 5 to 12 in the wall, running down to the front; costal cartilage; sternum."""
    box = p.region((-175, -130, 15), (175, 125, 300))
    if empty(box):
        return
    depth = p.depth[box]
    layer = (depth - 7.2).abs()
    part = (layer < 5.5).nonzero(as_tuple=True)
    layer, labels = layer[part], p.labels[box]
    x, y, z = (c[part] for c in p.local(box))
    angle = torch.atan2(y + 8, x.abs())  # -pi/2 at the back, pi/2 in front
    steep, high = p.dice.uniform(50, 66), p.dice.uniform(-8, 8)
    run = z + steep * (angle + 1.25) - high  # height of the rib's root at this place
    number = torch.round((284 - run) / SEGMENT) + 7
    off = run - (284 - SEGMENT * (number - 7))
    reach = torch.full((20,), 0.62, device=x.device)
    reach[8:13] = torch.tensor((0.72, 0.66, 0.58, 0.1, -0.55))
    limit = reach[number.clamp(0, 19).long()]
    rib = (off / 9.5) ** 2 + (layer / 3.7) ** 2 < 1
    rib &= (angle < limit) & (number >= 5) & (number <= 12) & ((x.abs() > 24) | (angle > 0))
    arch = 62 + 108 * (1 - x.abs() / 118).clamp_min(0)
    cartilage = ((z - arch) / 12) ** 2 + (layer / 4.6) ** 2 < 1
    cartilage &= (angle > 0.5) & (x.abs() < 112)
    on = (off / 12) ** 2 + (layer / 4.4) ** 2 < 1
    cartilage = ((cartilage | (on & (angle > limit) & (z > arch))) & (number <= 10)) & (
        x.abs() > 10
    )
    found = labels[part]
    free = (found == int(Tissue.FAT)) | (found == int(Tissue.MUSCLE))
    found.masked_fill_(cartilage & free, int(Tissue.DISC))
    found.masked_fill_(rib & free, int(Tissue.BONE))
    labels[part] = found
    x, y, z = p.local(box)
    highest, lowest = float(p.z[box[2]].max()), float(p.z[box[2]].min())
    if highest > 165 > lowest:
        sternum = (x.abs() < 15) & (depth > 2.5) & (depth < 12.5) & (y > 0) & (z > 172)
        p.paint(box, sternum, Tissue.BONE, WALL)


def _at(p: Painter, box: tuple[slice, slice, slice], values: Mapping[int, float]) -> Tensor:
    heights = sorted(values)
    return p.curve(heights, [values[h] for h in heights], 5.0)[:, :, box[2]]


def paint_sacrum(p: Painter) -> None:
    box = p.region((-66, -130, -192), (66, -35, -78), 8)
    if empty(box):
        return
    x, y, z = p.local(box)
    wide = _at(p, box, {-80: 46, -95: 53, -112: 52, -130: 38, -150: 24, -170: 12, -188: 6})
    centre = _at(p, box, {-80: -60, -95: -70, -112: -80, -130: -90, -150: -95, -175: -88})
    deep = _at(p, box, {-80: 17, -100: 17, -120: 14, -150: 9, -180: 5})
    u = x / wide
    v = (y - centre + 9 * u * u) / (deep * (1 - 0.3 * u * u))
    bone = (u * u + v * v + u * u * v * v < 1) & (z > -188) & (z < -80)
    p.paint(box, bone, Tissue.VERTEBRA, (*WALL, Tissue.DISC, Tissue.SOFT))
    canal = (x / 8) ** 2 + ((y - centre + 0.55 * deep) / 4.5) ** 2 < 1
    p.paint(box, canal & (z > -150), Tissue.FAT, (Tissue.VERTEBRA,))
    hole = torch.remainder(z + 96, 17.0) - 8.5
    pierce = ((x.abs() - 0.42 * wide - 2) / 4) ** 2 + (hole / 4.5) ** 2 < 1
    p.paint(box, pierce & (v > -0.2) & (z < -92) & (z > -160), Tissue.FAT, (Tissue.VERTEBRA,))
    crest = (x.abs() < 4) & (y < centre) & (y > centre - deep - 9) & (z > -140) & (z < -82)
    p.paint(box, crest, Tissue.VERTEBRA, WALL)


# Iliac wing by height: its rear and front end (x, y) in the axial plane.
_REAR_X = {-36: 103, -50: 88, -62: 72, -80: 54, -100: 49, -118: 53, -132: 64, -150: 76, -162: 82}
_REAR_Y = {-36: -42, -50: -62, -62: -76, -80: -92, -100: -90, -118: -78, -132: -64, -150: -44}
_FRONT_X = {-36: 108, -50: 116, -62: 120, -80: 123, -100: 122, -115: 116, -135: 108, -162: 98}
_FRONT_Y = {-36: -28, -50: -6, -62: 8, -80: 20, -100: 30, -115: 35, -135: 34, -162: 26}


def paint_pelvis(p: Painter) -> None:
    """Iliac wings with their muscles, acetabula, pubis, ischium, femora."""
    grow = p.dice.normal(1.02 if p.person.female else 1.0, 0.02)
    for side in (1, -1):
        _wing(p, side, grow)
        _hip(p, side)


def _wing(p: Painter, side: int, grow: float) -> None:
    box = p.region((25 if side > 0 else -160, -110, -165), (160 if side > 0 else -25, 60, -30), 10)
    if empty(box):
        return
    x, y, z = p.local(box)
    rx, ry = _at(p, box, _REAR_X) * grow, _at(p, box, _REAR_Y)
    dx, dy = _at(p, box, _FRONT_X) * grow - rx, _at(p, box, _FRONT_Y) - ry
    long = (dx * dx + dy * dy).sqrt()
    dx, dy = dx / long, dy / long
    mx, my = side * x - rx, y - ry
    t = (mx * dx + my * dy) / long  # 0 at the rear, 1 in front
    bulge = 5 * torch.sin(math.pi * t.clamp(0, 1)) - 3 * torch.sin(2 * math.pi * t.clamp(0, 1))
    off = mx * dy - my * dx - bulge  # outwards of the sheet, mm
    half = 2.6 + 5.5 * torch.exp(-((t / 0.18) ** 2)) + 2.2 * torch.exp(-(((t - 1) / 0.1) ** 2))
    half = half + 1.8 * ((-130 - z) / 30).clamp(0, 1) + 2.5 * ((z + 52) / 12).clamp(0, 1)
    end = ((t - 0.5).abs() - 0.5).clamp_min(0) * long
    bone = ((off / half) ** 2 + (end / 3.5) ** 2 < 1) & (z < -37) & (z > -163)
    inside, depth = (t > -0.02) & (t < 1.0) & (z < -44), p.depth[box]
    outer = inside & (off > half) & (off < 13 + 26 * (1 - (2 * t - 0.9) ** 2).clamp_min(0))
    p.paint(box, outer & (depth > 0), Tissue.MUSCLE, (Tissue.FAT,))
    seam = bump((off - half - 12 + 4 * p.texture[box]) / 1.5)
    p.detail[box] -= 70 * seam * outer
    iliacus = inside & (off < -half) & (off > -half - 12 * torch.sin(math.pi * t.clamp(0, 1)))
    p.paint(box, iliacus & (t > 0.25), Tissue.MUSCLE, (Tissue.FAT,))
    p.paint(box, bone, Tissue.BONE, WALL)


def _hip(p: Painter, side: int) -> None:
    centre = (88.0, -4.0, -184.0)
    low, high = sorted((side * 40, side * 130))
    box = p.region((low, -50, -225), (high, 40, -145), 6)
    if not empty(box):
        x, y, z = p.local(box)
        dx, dy, dz = side * x - centre[0], y - centre[1], z - centre[2]
        r = (dx * dx + dy * dy + dz * dz).sqrt()
        cup = (r > 25.5) & (r < 31.5) & (-0.8 * dx - 0.1 * dy + 0.5 * dz > -8)
        p.paint(box, cup, Tissue.BONE, WALL)
        p.paint(box, (r > 23.5) & (r <= 25.5), Tissue.SOFT, WALL)
        p.paint(box, r <= 23.5, Tissue.BONE, (*WALL, Tissue.SOFT))
    for nodes, radii in _PELVIC_BONES:
        line = [(side * a, b, c) for a, b, c in nodes]
        p.tube(line, list(radii), ((0.0, Tissue.BONE),), WALL, sd=0.8)


_PELVIC_BONES: tuple[tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]], ...] = (
    (((80, -40, -152), (74, -36, -180), (70, -38, -205), (62, -44, -232)), (8, 9, 11, 11)),
    (((99, 26, -158), (93, 22, -172), (74, 24, -190), (40, 40, -203)), (8, 9, 8, 6)),
    (((40, 40, -203), (18, 43, -206), (7, 42, -212)), (6, 7, 8)),
    (((9, 36, -222), (34, 8, -238), (56, -34, -240)), (6, 5, 6)),
    (((88, -4, -184), (112, -12, -195), (126, -18, -205)), (15, 12, 12)),
    (((128, -24, -188), (130, -20, -210)), (13, 15)),
    (((126, -18, -208), (122, -14, -235), (118, -8, -275)), (15, 14, 13)),
)
