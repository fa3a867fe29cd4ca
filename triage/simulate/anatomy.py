"""Parametric people: an abdomen from implicit shapes, no file needed.

World coordinates are RAS+ mm with the origin at the third lumbar vertebra, in the middle of the
trunk: x grows to the patient's right, y to the front, z to the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from triage.simulate.fields import Dice, Grid, ellipsoid, member
from triage.simulate.painter import Painter
from triage.simulate.scene import Person, Scene, fill_bowel
from triage.simulate.tissues import Tissue


def parametric(grid: Grid, dice: Dice, person: Person) -> Scene:
    """A parametric person on the grid."""
    painter = Painter(grid, person, dice)
    _trunk(painter)
    _skeleton(painter)
    below = _chest(painter)
    _solid_organs(painter, below)
    _vessels(painter)
    _gut(painter)
    fill_bowel(painter.labels, grid, dice)
    return Scene(grid, painter.labels, "parametric")


def _trunk(p: Painter) -> None:
    """Body outline, abdominal wall, cavity."""
    person = p.person
    x, y, z = p.xyz
    waist = 1 - 0.06 * torch.exp(-(((z - 10) / 70) ** 2))
    radial = ((x.abs() / (148 * waist)) ** 2.6 + (y.abs() / 105) ** 2.6) ** (1 / 2.6)
    depth = 120 * (1 - radial)  # about mm inside the wall's outer border
    p.labels[depth > -person.fat * (1 + 0.3 * ((y - 10) / 60).clamp(0, 1)) - 2] = int(Tissue.SKIN)
    p.labels[depth > -person.fat * (1 + 0.3 * ((y - 10) / 60).clamp(0, 1))] = int(Tissue.FAT)
    p.labels[depth > 0] = int(Tissue.MUSCLE)
    thin = person.muscle * (0.55 + 0.45 * (x.abs() / 60).clamp(0, 1)) * torch.where(y > 0, 0.8, 1.0)
    p.labels[depth > thin] = int(Tissue.FAT)
    p.depth = depth


def _skeleton(p: Painter) -> None:
    x, y, z = p.xyz
    fat = (Tissue.FAT, Tissue.MUSCLE)
    for side in (1, -1):  # back muscles and psoas
        p.labels[
            (((x - side * 36) / 34) ** 2 + ((y + 78) / 25) ** 2 < 1) & (p.labels > int(Tissue.AIR))
        ] = int(Tissue.MUSCLE)
        grow = ((80 - z) / 160).clamp(0.15, 1.0)
        shift = 34 + 12 * ((40 - z) / 120).clamp(0, 1.2)
        psoas = ((x - side * shift) / (20 * grow + 4)) ** 2 + ((y + 44) / (22 * grow + 4)) ** 2
        p.labels[(psoas < 1) & (z < 85) & (z > -190)] = int(Tissue.MUSCLE)
    body = (x / 23) ** 2 + ((y + 52) / 17) ** 2 < 1
    phase = torch.remainder(z + 17, 35.0)
    p.labels[body] = int(Tissue.VERTEBRA)
    p.labels[body & (phase < 7)] = int(Tissue.DISC)
    arch = ((x / 21) ** 2 + ((y + 74) / 17) ** 2 < 1) & (phase > 9)
    p.labels[arch & (phase < 27)] = int(Tissue.VERTEBRA)
    p.labels[(x.abs() < 4) & (y < -84) & (y > -104) & (phase > 8) & (phase < 24)] = int(
        Tissue.VERTEBRA
    )
    p.labels[(x.abs() < 42) & ((y + 70).abs() < 4) & (phase > 14) & (phase < 22)] = int(
        Tissue.VERTEBRA
    )
    p.labels[(x / 10) ** 2 + ((y + 76) / 9) ** 2 < 1] = int(Tissue.SOFT)
    inner = member(p.labels, fat)
    angle = torch.atan2(y, x.abs())  # -pi/2 at the back, +pi/2 in front
    slant = 26 * (angle + 1.2)
    depth = p.depth
    for k in range(6):  # ribs 7 to 12
        top = 250 - 33 * k + slant * -1.4
        reach = 1.0 if k < 3 else 0.75 - 0.35 * (k - 3)
        rib = ((depth - 6).abs() < 4.2) & ((z - top).abs() < 6.5) & (angle < reach)
        p.labels[rib & inner] = int(Tissue.BONE)
        if k < 3:
            cartilage = ((depth - 6).abs() < 5) & ((z - top).abs() < 8) & (angle >= reach)
            p.labels[cartilage & inner & (z > 90) & (x.abs() > 12)] = int(Tissue.DISC)
    for side in (1, -1):  # iliac wings, hips, sacrum
        wing = ellipsoid((x, y, z), (side * 78, -8, -95), (62, 72, 72))
        shell = (wing - 1).abs() < 0.13
        p.labels[shell & (z < -35) & (side * x > 55 - 0.25 * (y + 60)) & inner] = int(Tissue.BONE)
        p.labels[ellipsoid((x, y, z), (side * 92, 0, -190), (27, 27, 27)) < 1] = int(Tissue.BONE)
        p.labels[(ellipsoid((x, y, z), (side * 85, -75, -150), (55, 35, 75)) < 1) & inner] = int(
            Tissue.MUSCLE
        )
    p.labels[(ellipsoid((x, y, z), (0, -72, -120), (50, 17, 60)) < 1)] = int(Tissue.VERTEBRA)


def _chest(p: Painter) -> Tensor:
    """Lungs and heart; returns the mask of voxels below the diaphragm."""
    x, y, z = p.xyz
    breath = p.dice.uniform(-18, 18)
    dome = torch.maximum(
        182 + breath - ((x - 72) ** 2 + (y - 5) ** 2) / 95.0,
        170 + breath - ((x + 75) ** 2 + (y - 5) ** 2) / 95.0,
    )
    depth = p.depth
    above = (z > dome) & (depth > 11)
    lung = above & (p.labels == int(Tissue.FAT))
    p.labels[lung] = int(Tissue.LUNG)
    p.labels[above & (ellipsoid((x, y, z), (0, -8, 235), (30, 62, 95)) < 1) & lung] = int(
        Tissue.SOFT
    )
    p.labels[lung & (ellipsoid((x, y, z), (-28, 38, 215 + breath), (58, 44, 48)) < 1)] = int(
        Tissue.HEART
    )
    return (z < dome - 2.5) & (depth > 10)


def _solid_organs(p: Painter, below: Tensor) -> None:
    d = p.dice
    fat = (Tissue.FAT,)
    size = d.normal(1.0, 0.09)
    p.blob(
        Tissue.LIVER,
        p.jitter((72, 4, 112)),
        (70 * size, 82 * size, 78 * size),
        inside=fat,
        below=below,
    )
    left = (d.uniform(55, 95) * size, 40 * size, d.uniform(32, 46) * size)
    p.blob(Tissue.LIVER, p.jitter((8, 38, 138)), left, inside=fat, below=below)
    p.blob(Tissue.FAT, p.jitter((12, 52, 108)), (5, 22, 26), inside=(Tissue.LIVER,), tilt=15)
    p.blob(Tissue.FAT, p.jitter((38, 6, 92)), (22, 10, 9), inside=(Tissue.LIVER,), tilt=20)
    s = d.normal(1.0, 0.14)
    spleen = p.jitter((-98, -32, 120), 5)
    p.blob(
        Tissue.SPLEEN,
        spleen,
        (27 * s, 46 * s, 52 * s),
        inside=fat,
        below=below,
        tilt=14,
        rough=0.16,
    )
    notch = spleen + np.array([26, 14, 0])
    p.blob(Tissue.FAT, notch, (16, 26, 34), inside=(Tissue.SPLEEN,), tilt=18)
    for side, cortex, medulla in (
        (1, Tissue.CORTEX_RIGHT, Tissue.MEDULLA_RIGHT),
        (-1, Tissue.CORTEX_LEFT, Tissue.MEDULLA_LEFT),
    ):
        k = d.normal(1.0, 0.08)
        centre = p.jitter((side * 66, -44, 30 if side > 0 else 46), 5)
        allowed = (Tissue.FAT, Tissue.LIVER, Tissue.SPLEEN, Tissue.MUSCLE)
        p.blob(Tissue.FAT, centre, (36, 34, 66), inside=allowed[1:3], tilt=4)
        p.blob(cortex, centre, (27 * k, 25 * k, 55 * k), inside=allowed, tilt=7, rough=0.08)
        p.blob(medulla, centre, (19 * k, 17 * k, 45 * k), inside=(cortex,), tilt=7, rough=0.5)
        sinus = centre - np.array([side * 11, -3, 0])
        p.blob(Tissue.FAT, sinus, (14 * k, 11 * k, 30 * k), inside=(cortex, medulla), rough=0.25)
        p.blob(Tissue.URINE, sinus - np.array([side * 4, 0, 0]), (6, 7, 14), inside=fat)
        adrenal = centre + np.array([-side * 18, 6, 62])
        p.blob(Tissue.SOFT, adrenal, (4, 11, 13), inside=fat, tilt=25)


def _vessels(p: Painter) -> None:
    over = (Tissue.FAT, Tissue.LIVER, Tissue.SOFT, Tissue.DISC)
    aorta = p.dice.uniform(8.5, 11.5)
    line = [(-9.0, -24.0, float(z)) for z in range(300, -41, -40)]
    p.tube(line, aorta, ((0.0, Tissue.AORTA),), over, sd=1.5)
    for side in (1, -1):
        leg = [(-6, -24, -35), (side * 30, -25, -85), (side * 50, -10, -140), (side * 62, 35, -215)]
        p.tube(leg, 5.5, ((0.0, Tissue.ARTERY),), over)
        vein = [
            (14, -27, -45),
            (side * 33, -34, -90),
            (side * 52, -20, -140),
            (side * 54, 32, -215),
        ]
        p.tube(vein, 7.0, ((0.0, Tissue.VEIN),), over)
        kidney = [(0, -26, 52), (side * 30, -38, 46), (side * 54, -44, 42)]
        p.tube(kidney, 3.0, ((0.0, Tissue.ARTERY),), (Tissue.FAT,))
        vein_k = [(14, -22, 45), (side * 32, -32, 40), (side * 52, -42, 36)]
        p.tube(vein_k, 4.5, ((0.0, Tissue.VEIN),), (Tissue.FAT,))
    cava = [(18.0, -22.0, float(z)) for z in range(-45, 120, 40)] + [(22, -10, 150), (20, 0, 190)]
    p.tube(cava, p.dice.uniform(8, 12), ((0.0, Tissue.VEIN),), over, sd=2)
    p.tube([(-4, -14, 78), (-2, 4, 40), (8, 14, -20), (25, 18, -60)], 3.6, ((0.0, Tissue.ARTERY),))
    p.tube([(12, 6, 85), (8, 8, 45), (16, 16, -15)], 5.5, ((0.0, Tissue.PORTAL),))
    portal = [(10, 4, 80), (28, 4, 96), (44, 6, 108)]
    p.tube(portal, 7.0, ((0.0, Tissue.PORTAL),), (Tissue.FAT, Tissue.LIVER))
    splenic = [(10, 4, 82), (-25, -4, 92), (-55, -22, 108), (-76, -30, 115)]
    p.tube(splenic, 4.5, ((0.0, Tissue.PORTAL),), (Tissue.FAT,))
    p.tube([(-4, -8, 84), (-30, 0, 100), (-74, -26, 122)], 3.0, ((0.0, Tissue.ARTERY),))


def _gut(p: Painter) -> None:
    d = p.dice
    pancreas = [(36, 10, 62), (14, 14, 78), (-20, 2, 84), (-60, -24, 104)]
    p.tube(pancreas, [13, 10, 9, 8], ((0.0, Tissue.PANCREAS),))
    p.blob(
        Tissue.GALLBLADDER, p.jitter((52, 46, 66)), (14, 17, 26), inside=(Tissue.FAT, Tissue.LIVER)
    )
    full = d.uniform(0.75, 1.25)
    stomach = [(-30, -5, 160), (-62, 10, 135), (-52, 38, 95), (-12, 50, 72), (30, 34, 74)]
    radii = [14, 30 * full, 26 * full, 17 * full, 9]
    layers = ((0.0, Tissue.STOMACH_WALL), (-4.0, Tissue.STOMACH_CONTENT))
    path = p.tube(stomach, radii, layers)
    level = float(np.quantile(path[:, 1], d.uniform(0.3, 0.95)))
    content = p.labels == int(Tissue.STOMACH_CONTENT)
    p.labels[content & (p.grid.axis(1)[None, :, None] > level)] = int(Tissue.GAS)
    for line, radius in _colon_lines(d):
        waves = [radius * d.uniform(0.75, 1.25) for _ in line]
        p.tube(line, waves, ((0.0, Tissue.COLON_WALL), (-2.4, Tissue.COLON_CONTENT)), sd=6)
    duodenum = [(32, 30, 72), (52, 12, 60), (46, -4, 20), (10, -4, 8), (-22, 6, 22)]
    wall = ((0.0, Tissue.BOWEL_WALL), (-2.4, Tissue.BOWEL_CONTENT))
    p.tube(duodenum, 11.0, wall)
    p.blob(Tissue.BLADDER, p.jitter((0, 28, -178)), (32, 28, 26), inside=(Tissue.FAT,))
    p.blob(Tissue.SOFT, p.jitter((0, -8, -185)), (24, 20, 24), inside=(Tissue.FAT,))
    for _ in range(d.integer(6, 11)):
        start = np.array([d.uniform(-75, 75), d.uniform(0, 62), d.uniform(-135, 35)])
        line, heading = [tuple(start)], d.direction()
        for _ in range(d.integer(10, 18)):
            heading = heading + 0.9 * d.direction()
            heading /= np.linalg.norm(heading)
            step = start + heading * 24
            low, high = np.array([-88, -8, -150]), np.array([88, 74, 42])
            heading = np.where((step < low) | (step > high), -heading, heading)
            start = np.clip(step, low, high)
            line.append(tuple(start))
        p.tube(line, d.uniform(9, 14), wall, sd=0.5)


def _colon_lines(d: Dice) -> list[tuple[Sequence[tuple[float, float, float]], float]]:
    sag = d.uniform(-35, 25)
    right = [(82, 12, -100), (90, 2, -60), (92, -8, -10), (86, -2, 36)]
    across = [
        (84, 14, 42),
        (50, 62, 20 + sag),
        (0, 72, 5 + sag),
        (-50, 62, 25 + sag),
        (-92, 18, 82),
    ]
    left = [(-94, 0, 80), (-97, -18, 20), (-96, -16, -50), (-84, 0, -100)]
    sigmoid = [(-82, 5, -102), (-48, 24, -130), (-10, 6, -140), (2, -38, -150), (0, -48, -205)]
    size = d.uniform(15, 23)
    return [(right, size * 1.15), (across, size), (left, size * 0.85), (sigmoid, size * 0.8)]
