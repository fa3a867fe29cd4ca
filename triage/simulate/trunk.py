"""The trunk of a parametric person: outline, abdominal wall, muscle groups, arms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from triage.simulate.fields import bump, empty, finer, smooth_noise
from triage.simulate.painter import Painter
from triage.simulate.tissues import Tissue

# Outer surface of the muscles by height, mm in the standard person: half width, front, back.
HEIGHT = (-260.0, -215, -185, -150, -100, -45, 0, 60, 120, 180, 250)
WIDTH = (150.0, 163, 164, 158, 146, 137, 137, 142, 147, 147, 142)
FRONT = (58.0, 62, 66, 74, 84, 92, 97, 98, 98, 94, 84)
BACK = (-114.0, -120, -122, -120, -113, -106, -103, -104, -106, -108, -110)
SPINE_HEIGHT = (-105.0, -85, -60, 0, 60, 110, 160, 220, 280)
SPINE = (-72.0, -60, -53, -48, -51, -57, -64, -70, -72)  # centre of the vertebral bodies


def spine_line(p: Painter) -> Tensor:
    """Depth of the vertebral bodies' centre by height: (1, 1, Z), mm."""
    return p.curve(SPINE_HEIGHT, SPINE)


def paint_trunk(p: Painter) -> None:
    """Skin, subcutaneous fat, the wall and its layers; sets `depth` and `inner`."""
    depth, thick, fat = _wall(p)
    p.depth, p.inner = depth, depth - thick
    p.labels[:] = (depth > -fat - 1.9) * int(Tissue.SKIN)
    p.labels.masked_fill_(depth > -fat, int(Tissue.FAT))
    wall = (depth > 0) & (p.inner < 0)
    p.labels.masked_fill_(wall, int(Tissue.MUSCLE))
    x, y, _ = p.xyz
    part = (wall & (x.abs() > 76) & (y > -70) & (p.inner < -0.5)).nonzero(as_tuple=True)
    depth, thick = depth[part], thick[part]
    lines = bump((depth - 0.38 * thick) / 1.3) + bump((depth - 0.70 * thick) / 1.3)
    p.detail[part] -= lines * min(25 + 3.0 * p.person.fat, 100)
    if p.person.female:
        _breasts(p)


def _wall(p: Painter) -> tuple[Tensor, Tensor, Tensor]:
    """Depth below the muscles' surface, thickness of the wall and of the fat, each in mm.

    They are smooth: computed on a coarser grid.
    """
    person, shape = p.person, p.grid.shape
    steps = [max(1, round(4.5 / s)) for s in p.grid.spacing]
    few = tuple(slice(None, None, k) for k in steps)
    x, y, z = (c[few] for c in p.xyz)
    heights = p.z[few[2]]
    wide, front, back = (p.curve(HEIGHT, line)[:, :, few[2]] for line in (WIDTH, FRONT, BACK))
    wide = wide * (1 + (person.hips - 1) * ((-60 - heights) / 90).clamp(0, 1))
    middle, half = (front + back) / 2, (front - back) / 2
    dy = y - middle
    u, v = (x / wide) ** 2, (dy / half) ** 2
    radial = 0.5 * ((u + v).sqrt() + (u * u + v * v).sqrt().sqrt())
    rho = (x * x + dy * dy).sqrt().clamp_min(1.0)
    depth = (rho / radial.clamp_min(0.01) - rho).clamp(-150, 150)
    ahead = dy / rho  # 1 in front, -1 behind
    groove = torch.exp(-((x / 17) ** 2)) * ((-ahead - 0.6) / 0.2).clamp(0, 1)
    depth = depth - 6 * groove
    fat = _fat(p, x, ahead, groove, p.texture[few], few[2])
    thick = _thickness(p, x.abs() / wide, ahead, z, heights)
    return finer(depth, steps, shape), finer(thick, steps, shape), finer(fat, steps, shape)


def _fat(
    p: Painter, x: Tensor, ahead: Tensor, groove: Tensor, texture: Tensor, some: slice
) -> Tensor:
    """Thickness of the subcutaneous fat, mm."""
    person = p.person
    height = p.curve((-230, -180, -110, -30, 60, 140, 220), (1.0, 1.1, 1.3, 1.1, 0.85, 0.6, 0.55))
    front = p.curve((-200, -130, -40, 40, 150), (0.7, 1.15, 1.25, 1.0, 0.7))[:, :, some]
    height = height[:, :, some]
    share = 0.8 + person.belly * ahead.clamp_min(0) * front - 0.2 * ahead.clamp_min(0)
    share += 0.35 * (-ahead).clamp_min(0) * (x.abs() / 70).clamp(0, 1)  # love handles
    share += 0.08 * texture
    return person.fat * share * height * (1 - 0.55 * groove) + 1.0


def _thickness(p: Painter, across: Tensor, ahead: Tensor, z: Tensor, heights: Tensor) -> Tensor:
    """Thickness of the wall, mm: rectus, obliques, rib cage. `across`: |x| over the half width."""
    m = p.person.muscle
    steps = torch.linspace(0, 1.3, 131)
    profile = torch.zeros(131)
    for (x0, v0), (x1, v1) in pairwise(_FRONT_WALL):
        part = (steps >= x0) & (steps <= x1)
        profile[part] = v0 + (v1 - v0) * (steps[part] - x0) / (x1 - x0)
    index = (across * 100).clamp(0, 130).to(torch.int32).flatten()
    front = profile.to(index.device).index_select(0, index).reshape(across.shape) * m
    rear = m * (0.6 + 0.75 * across.clamp(0, 1) ** 2)
    thick = torch.where(ahead > 0, front, rear)
    arch = 52 + 118 * ahead.clamp_min(0) * (1 - across).clamp_min(0)
    cage = ((z - arch) / 22 + 0.5).clamp(0, 1)
    thick = torch.lerp(thick, 11.5 + 0.25 * m * (1 - ahead), cage)
    pelvis = ((-140 - heights) / 40).clamp(0, 1)  # the wall ends at the inguinal ligament
    return thick * (1 - 0.35 * pelvis)


_FRONT_WALL = (
    (0.0, 0.22),
    (0.035, 0.22),
    (0.07, 0.8),
    (0.2, 1.0),
    (0.4, 0.8),
    (0.47, 0.3),
    (0.53, 0.3),
    (0.64, 1.15),
    (0.85, 1.5),
    (1.3, 1.35),
)


def _breasts(p: Painter) -> None:
    d = p.dice
    size = d.uniform(0.5, 1.0) + 0.02 * p.person.fat
    for side in (1, -1):
        centre = p.jitter((side * 78, 92, 232), 5)
        shape = (50 * size, 40 * size, 48 * size)
        p.blob(Tissue.SKIN, centre, (shape[0] + 2, shape[1] + 2, shape[2] + 2), inside=(_AIR,))
        p.blob(Tissue.FAT, centre, shape, inside=(_AIR, Tissue.SKIN))
        if d.chance(0.6):
            p.blob(
                Tissue.SOFT,
                centre + np.array([0.0, 8, 4]),
                (22, 14, 18),
                rough=0.6,
                inside=(Tissue.FAT,),
            )


_AIR = Tissue.AIR


def paint_back(p: Painter) -> None:
    """Erector spinae, quadratus lumborum, psoas and iliacus, latissimus."""
    line = spine_line(p)
    fat = (Tissue.FAT, Tissue.MUSCLE)
    box = p.region((-95, -125, -140), (95, -20, 290))
    if empty(box):
        return
    x, y, _ = p.local(box)
    depth = p.depth[box]
    zbox = line[:, :, box[2]]
    size = p.curve((-135, -110, -70, 0, 80, 140, 240), (0.3, 0.7, 0.95, 1.0, 0.9, 0.72, 0.6))
    size = size[:, :, box[2]] * p.dice.normal(1.0, 0.06)
    fine, body = p.fine[box], p.labels[box] > int(Tissue.AIR)
    for side in (1, -1):
        near = side * x
        for centre, wide, drop, deep in ((39.0, 37.0, -32.0, 25.0), (66.0, 17.0, -10.0, 11.0)):
            outer = centre > 50  # quadratus lumborum
            off = ((near - centre * (1 if outer else size)) / (wide * size)) ** 2
            off = off + ((y - zbox - drop + (0 if outer else 6 * (1 - size))) / (deep * size)) ** 2
            mask = (off + 0.05 * fine < 1) & body & (depth > 0.5)
            if outer:
                mask &= ((p.z > -45) & (p.z < 85))[box[2]]
            p.paint(box, mask, Tissue.MUSCLE, fat)
            rim = (off > 0.93) & (off < 1.13) & body & (depth > 0)
            p.paint(box, rim, Tissue.FAT, (Tissue.MUSCLE,))
        split = bump((near - 33 * size - 0.25 * (y - zbox + 30)) / 1.6)
        p.detail[box] -= split * 55 * (y < zbox - 18) * (near < 74)
    r = p.dice.normal(1.0, 0.12) * (0.9 if p.person.female else 1.05)
    for side in (1, -1):
        nodes = [
            (side * 22, -52, 80),
            (side * 29, -46, 40),
            (side * 38, -42, 0),
            (side * 46, -36, -45),
            (side * 56, -24, -85),
            (side * 66, -2, -125),
            (side * 80, 24, -165),
            (side * 90, 28, -195),
            (side * 104, 4, -232),
        ]
        radii = [5 * r, 11 * r, 16 * r, 19 * r, 18 * r, 17 * r, 15 * r, 14 * r, 10]
        p.tube(nodes, radii, ((1.2, Tissue.FAT), (0.0, Tissue.MUSCLE)), fat, sd=2, rough=0.7)


def paint_hips(p: Painter) -> None:
    """Muscles around the hip: gluteal, obturator, adductor and anterior groups."""
    layers = ((0.9, Tissue.FAT), (0.0, Tissue.MUSCLE))
    over = (Tissue.FAT, Tissue.MUSCLE)
    r = p.dice.normal(1.04, 0.08)
    box = p.region((-190, -130, -300), (190, 90, -100))
    if empty(box):
        return
    x, y, z = p.local(box)
    away = x.abs() - 60 + 7 * p.texture[box] + 0.1 * (z + 100).clamp(-60, 0)
    bed = (
        (away > 0)
        & (p.depth[box] > 2 - 5 * p.fine[box])
        & (y < 34 - 0.9 * (104 - x.abs()).clamp(0, 60) + 9 * p.fine[box])
    )
    bed &= y > -100
    bed &= (p.fine[box].abs() > 0.12) & (p.texture[box] < 1.2) & (z < -104 - 0.5 * away)
    p.paint(box, bed, Tissue.MUSCLE, (Tissue.FAT,))
    for side in (1, -1):
        for nodes, radii in _HIP_MUSCLES:
            line = [(side * a, b, c) for a, b, c in nodes]
            p.tube(line, [q * r for q in radii], layers, over, sd=3, rough=2.2)


_HIP_MUSCLES: tuple[tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]], ...] = (
    (((52, -94, -110), (72, -90, -150), (92, -82, -190), (112, -60, -230)), (16, 26, 27, 22)),
    (((40, -98, -130), (50, -98, -165), (62, -94, -205)), (12, 20, 20)),
    (((100, -62, -135), (110, -66, -165), (124, -46, -205)), (16, 20, 14)),
    (((112, -35, -75), (122, -32, -110), (130, -22, -150), (134, -16, -185)), (10, 20, 20, 12)),
    (((122, -2, -80), (130, 2, -115), (135, 8, -150), (138, 12, -185)), (8, 15, 14, 9)),
    (((128, 22, -110), (134, 28, -150), (136, 28, -190), (138, 16, -240)), (6, 12, 14, 11)),
    (((118, 34, -125), (108, 46, -165), (92, 52, -205), (76, 50, -245)), (6, 8, 9, 10)),
    (((104, 34, -165), (108, 38, -200), (110, 36, -245)), (6, 12, 17)),
    (((60, -20, -160), (62, -22, -190), (66, -28, -210)), (7, 9, 8)),
    (((46, -78, -125), (74, -62, -145), (110, -30, -175)), (8, 9, 6)),
    (((62, 20, -205), (70, 8, -230), (78, -2, -255)), (10, 16, 22)),
    (((34, 22, -225), (44, 10, -245), (58, -8, -265)), (8, 16, 22)),
    (((66, -52, -225), (80, -52, -245), (92, -48, -265)), (10, 16, 20)),
)


def paint_arms(p: Painter) -> None:
    """Arms beside the trunk or across it; they cast streaks over it (see the scanner)."""
    arms, d = p.person.arms, p.dice
    sides = {"up": (), "down": (1, -1), "one": (d.rng.choice([1, -1]),), "across": (1,)}[arms]
    size = d.uniform(0.85, 1.15)
    fat = 3 + 0.2 * p.person.fat
    for side in sides:
        away = 163 + 1.1 * p.person.fat / float(p.scale[0]) + 44 * size
        if arms == "across":
            front = 98 + (0.9 + p.person.belly) * p.person.fat / float(p.scale[1]) + 38
            z0 = d.uniform(-60, 120)
            nodes = [
                (side * 190, 30, z0 + 40),
                (side * 110, front, z0),
                (-side * 90, front + 4, z0),
            ]
            radii = [42 * size, 36 * size, 28 * size]
            bones = [[(a, b + o, c + o) for a, b, c in nodes] for o in (-8, 8)]
        else:
            y = d.uniform(-35, 15)
            nodes = [(side * away, y - 10, 300), (side * away, y - 12, 90)]
            nodes += [(side * (away + 4), y, 60), (side * (away - 4), y + 8, -170)]
            radii = [46 * size, 40 * size, 42 * size, 27 * size]
            bones = [[(a, b, c) for a, b, c in nodes[:2]]]
            bones += [[(a + o, b + o, c) for a, b, c in nodes[2:]] for o in (-8, 8)]
        air = (Tissue.AIR,)
        skin = ((0.0, Tissue.SKIN), (-2.0, Tissue.FAT), (-2.0 - fat, Tissue.MUSCLE))
        p.tube(nodes, radii, skin, air, sd=3, rough=1.5)
        for line in bones:
            p.tube(line, 8.5 * size, ((0.0, Tissue.BONE),), (Tissue.MUSCLE, Tissue.FAT), sd=1)


def strand_fat(p: Painter) -> None:
    """Thin septa and small vessels of the fat: lines of a few HU."""
    noise = smooth_noise(p.dice, p.grid.shape, p.grid.spacing, 17)
    lines = bump(noise / 0.055) * (p.texture > 0.2)
    p.detail += lines * (p.labels == int(Tissue.FAT)) * p.dice.uniform(12, 35)
