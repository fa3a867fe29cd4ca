"""Parametric people: an abdomen from implicit shapes, no file needed.

World coordinates are RAS+ mm with the origin at the third lumbar vertebra, in the middle of the
trunk: x grows to the patient's right, y to the front, z to the head.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from triage.simulate import gut, skeleton, trunk, vessels
from triage.simulate.fields import (
    Dice,
    Grid,
    bump,
    ellipsoid,
    empty,
    finer,
    rotation,
    smooth_noise,
)
from triage.simulate.painter import Painter, smooth_min
from triage.simulate.scene import Person, Scene, fill_bowel
from triage.simulate.tissues import Tissue

FAT = (Tissue.FAT,)


def parametric(grid: Grid, dice: Dice, person: Person) -> Scene:
    """A parametric person on the grid."""
    painter = Painter(grid, person, dice)
    trunk.paint_trunk(painter)
    trunk.paint_back(painter)
    skeleton.paint_spine(painter)
    skeleton.paint_ribs(painter)
    trunk.paint_hips(painter)
    skeleton.paint_sacrum(painter)
    skeleton.paint_pelvis(painter)
    _chest(painter)
    _liver(painter)
    _spleen(painter)
    for side in (1, -1):
        _kidney(painter, side)
    vessels.paint_vessels(painter)
    gut.paint_gut(painter)
    trunk.paint_arms(painter)
    fill_bowel(painter.labels, grid, dice)
    trunk.strand_fat(painter)
    return Scene(grid, painter.labels, "parametric", detail=painter.detail)


def _chest(p: Painter) -> None:
    """Lungs, heart, diaphragm with its crura; sets `dome`."""
    (x, y, z), d = p.xyz, p.dice
    breath = d.uniform(-16, 20)
    flat = d.uniform(95, 125)
    steps = [max(1, round(4.5 / s)) for s in p.grid.spacing]
    few = tuple(slice(None, None, k) for k in steps)
    u, v = x[few], (y[few] - 12) ** 2
    right = 176 - ((u - 66) ** 2 + v) / flat
    left = 164 - ((u + 70) ** 2 + v) / flat
    middle = 158 - (u**2 + (y[few] - 34) ** 2) / 75  # the heart lies on it
    dome = torch.maximum(torch.maximum(right, left), middle) + breath - z[few]
    p.dome = finer(dome + 2.5 * p.texture[few], steps, p.grid.shape)
    high = p.region((-200, -200, 20), (200, 200, 400))  # the rest is below the diaphragm
    labels, dome = p.labels[high], p.dome[high]
    free = (p.inner[high] > 0.5) & (labels == int(Tissue.FAT)) & (dome < 2.2)
    labels.masked_fill_(free & (dome < 0), int(Tissue.LUNG))
    labels.masked_fill_(free & (dome > 0), int(Tissue.MUSCLE))
    air = (Tissue.LUNG,)
    p.blob(Tissue.FAT, np.array([-4.0, -28, 235]), (30, 44, 95), inside=air)
    heart = p.jitter((-24, 34, 196 + breath), 5)
    size = d.normal(1.0, 0.08)
    p.blob(Tissue.FAT, heart - [0, 0, 6], (64 * size, 52 * size, 62), inside=air, rough=0.1)
    over = (Tissue.LUNG, Tissue.FAT)
    p.blob(Tissue.MYOCARDIUM, heart, (56 * size, 44 * size, 50), inside=over, rough=0.06)
    for offset, radii in (((-14, -2, 0), (28, 21, 34)), ((20, 12, -2), (24, 22, 34))):
        at = heart + np.array(offset) * size
        p.blob(Tissue.HEART, at, radii, inside=(Tissue.MYOCARDIUM,), rough=0.12, tilt=15)
    p.detail[high] += bump((p.fine[high] - 2.3) / 0.7) * 700 * (labels == air[0])  # vessels
    for side, low in ((1, 30), (-1, 45)):  # crura
        line = [(side * 9, -34, low), (side * 11, -32, 90), (side * 13, -24, 135)]
        p.tube(line, [3.5, 5, 3], ((0.0, Tissue.MUSCLE),), FAT, sd=1, rough=0.8)
    line = [(-6, -26, 300), (-8, -24, 220), (-16, -8, 178), (-28, -4, 158)]
    p.tube(line, [8, 8, 8, 9], ((0.0, Tissue.SOFT),), (*over, Tissue.MUSCLE), sd=1.5)


def _liver(p: Painter) -> None:
    """The right upper quadrant up to a slanting visceral surface; fissures, porta, gallbladder."""
    d = p.dice
    box = p.region((-110, -110, -25), (165, 115, 225))
    if empty(box):
        return
    x, y, z = p.local(box)
    shift = d.normal(0, 10)
    heights = [h + shift for h in (-15, 10, 30, 50, 85, 125, 160, 210)]
    edge = [165, 132, 104, 80, 44, 20, 0, -10]
    lean = [0, -0.05, -0.1, -0.2, -0.5, -0.78, -0.66, -0.5]
    at = p.curve(heights, edge, 10.0)[:, :, box[2]]
    slope = p.curve(heights, lean, 10.0)[:, :, box[2]]
    visceral = (x - at - slope * (y + 40)) / (1.6 + slope**2).sqrt()
    visceral = visceral + 3.5 * p.texture[box] + 0.6 * p.fine[box]
    left = x + d.uniform(12, 78) + 0.15 * (y - 40)
    low = z - d.uniform(-25, 35)
    shape = smooth_min(
        visceral,
        left * 0.8,
        p.inner[box] - 0.8 + 0.8 * p.fine[box],
        p.dome[box] - 2.0,
        low,
        soft=9.0,
    )
    p.paint(box, shape > 0, Tissue.LIVER, FAT)
    liver = (Tissue.LIVER,)
    deep = d.uniform(6, 26)
    p.blob(Tissue.FAT, p.jitter((4, 66, 92)), (3.5, deep, 32), inside=liver, tilt=22, rough=0.5)
    p.blob(Tissue.FAT, p.jitter((36, 8, 94)), (20, 7, 8), inside=liver, tilt=15, rough=0.3)
    p.blob(Tissue.FAT, p.jitter((6, 0, 116)), (15, 2.5, 18), inside=liver, tilt=22, rough=0.6)
    if d.chance(0.85):
        size = d.uniform(0.6, 1.25)
        line = [(46, 30, 84), (54, 42, 66), (60, 52, 46)]
        layers = ((1.5, Tissue.FAT), (0.0, Tissue.STOMACH_WALL), (-1.8, Tissue.GALLBLADDER))
        radii = [7 * size, 14 * size, 12 * size]
        p.tube(line, radii, layers, (Tissue.LIVER, Tissue.FAT), sd=4, rough=0.6)


def _spleen(p: Painter) -> None:
    d = p.dice
    s = float(np.clip(d.normal(1.15, 0.16), 0.7, 1.7)) * p.evened
    centre = p.jitter((-104, -40, 112), 6)
    reach = 62 * s
    box = p.region(tuple(centre - reach), tuple(centre + reach))
    if empty(box):
        return
    xyz = p.local(box)
    turn = rotation(d, 10)
    whole = ellipsoid(xyz, tuple(centre), (36 * s, 50 * s, 56 * s), turn)
    hilum = centre + np.array([46.0 * s, 20, d.uniform(-12, 10)])
    hollow = ellipsoid(xyz, tuple(hilum), (33 * s, 46 * s, 62 * s), turn)
    shape = smooth_min(
        (1 - whole.sqrt()) * 38 * s + 2.5 * p.texture[box],
        (hollow.sqrt() - 1) * 36 * s + 2.0 * p.fine[box],
        p.inner[box] - 1.5,
        p.dome[box] - 2.5,
        soft=7.0,
    )
    p.paint(box, shape > 0, Tissue.SPLEEN, FAT)
    if d.chance(0.12):  # accessory spleen
        p.blob(Tissue.SPLEEN, hilum + d.direction() * 12, (5, 5, 5), inside=FAT)


def _kidney(p: Painter, side: int) -> None:
    """Cortex, pyramids, sinus with fat and renal pelvis; adrenal gland; perirenal fat."""
    d = p.dice
    if side > 0:
        cortex, medulla = Tissue.CORTEX_RIGHT, Tissue.MEDULLA_RIGHT
    else:
        cortex, medulla = Tissue.CORTEX_LEFT, Tissue.MEDULLA_LEFT
    k = float(np.clip(d.normal(1.0, 0.08), 0.8, 1.25)) * p.evened
    usual = p.jitter((side * 66, -44, 30 if side > 0 else 44), 5)
    centre = usual + _lowered(d, side)
    reach = np.array([50.0, 50, 74]) * k
    box = p.region(tuple(centre - reach), tuple(centre + reach))
    if empty(box):
        return
    xyz = p.local(box)
    turn = _kidney_turn(d, side)
    whole = ellipsoid(xyz, tuple(centre), (30 * k, 27 * k, 56 * k), turn)
    hilum = centre + turn.T @ np.array([-side * 31.0 * k, 0, 0])
    notch = ellipsoid(xyz, tuple(hilum), (20 * k, 10 * k, 22 * k), turn)
    shape = smooth_min(
        (1 - whole.sqrt()) * 28 * k + 1.2 * p.texture[box],
        (notch.sqrt() - 1) * 12 * k,
        soft=4.0,
    )
    organs = (Tissue.FAT, Tissue.LIVER, Tissue.SPLEEN, Tissue.MUSCLE)
    p.paint(box, (shape > -5) & (shape <= 0), Tissue.FAT, organs[1:])
    kidney = shape > 0
    p.paint(box, kidney, cortex, organs)
    pattern = smooth_noise(d, whole.shape, p.grid.spacing, 13 * k)
    p.paint(box, kidney & (shape > 6.5 * k) & (pattern > -0.5), medulla, (cortex,))
    inner = ellipsoid(xyz, tuple(centre + 0.4 * (hilum - centre)), (13 * k, 7 * k, 28 * k), turn)
    rough = 0.35 * p.fine[box]
    p.paint(box, kidney & (inner + rough < 1), Tissue.FAT)
    calyx = (inner + 0.9 * pattern < 0.75) & kidney & (inner < 0.9)
    p.paint(box, calyx, Tissue.URINE, FAT)
    gerota = bump((shape + d.uniform(9, 16) + 2 * p.texture[box]) / 1.2)
    p.detail[box] += 28 * gerota * (p.labels[box] == int(Tissue.FAT))
    pelvis = hilum + turn.T @ np.array([-side * 2.0, 0, 0])
    course = [(side * 42, -34, 8), (side * 38, -28, -40), (side * 40, -22, -90)]
    course += [(side * 46, -30, -140), (side * 22, -8, -172)]
    below = [point for point in course if point[2] < pelvis[2] - 15]
    wide = [4.5, 2.2, *[1.8] * 4][: len(below) + 1]
    p.tube([tuple(pelvis), *below], wide, ((0.0, Tissue.URINE),), FAT, sd=1.5)
    top = usual + np.array([-side * 16, 4, 52 * k])  # it stays where it is when a kidney sinks
    for way in (-9.0, 4.0):  # limbs of the adrenal gland
        along = ((0, 10, 12), (side * way * 0.4, -2, 4), (side * way, -14, -6))
        p.tube(top + np.array(along), 2.4, ((0.0, Tissue.SOFT),), FAT, sd=0.5)


def _lowered(d: Dice, side: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How far a kidney lies from its usual place (mm): with the breath, and sunken in a sixth.

    A kidney moves 1 to 4 cm with breathing and posture; mobile ones reach the iliac fossa, in front
    of the psoas. One real CT without injury (lower poles 4 cm below the iliac crest) was missed by
    a network that had only seen kidneys at their usual level.
    """
    own = d.rng.spawn(1)[0]  # draws apart: everything else stays as it was
    down = own.normal(4, 9)
    if own.random() < 0.17:
        down += own.uniform(12, 55)
    return np.array([side * 0.08 * down, 0.2 * max(down, 0.0), -down])


def _kidney_turn(d: Dice, side: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Rotation into the kidney's own axes: hilum forwards and inwards, upper pole inwards."""
    a = np.radians(side * -d.uniform(25, 50))
    b = np.radians(side * d.uniform(4, 14))
    around = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])
    tilt = np.array([[np.cos(b), 0, np.sin(b)], [0, 1.0, 0], [-np.sin(b), 0, np.cos(b)]])
    return np.asarray(around @ tilt @ rotation(d, 4))


def cavity(p: Painter) -> Tensor:
    """Mask of the abdominal cavity's fat, below the diaphragm."""
    return (p.inner > 2) & (p.dome > 2.5) & (p.labels == int(Tissue.FAT))
