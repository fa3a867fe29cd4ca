"""Simple slices of thighs, legs and heads, drawn from ellipses: what no label map at hand shows.

Pictures (96, 96) in HU with 4.5 mm pixels, x to the patient's right, y to the front.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triage.imaging.coarse import AIR, COARSE_MM, SIDE

Picture = NDArray[np.float32]
_AXIS = (np.arange(SIDE) - (SIDE - 1) / 2) * COARSE_MM[0]
X, Y = np.meshgrid(_AXIS, _AXIS, indexing="ij")  # mm


def _ellipse(x: float, y: float, a: float, b: float, turn: float = 0.0) -> Picture:
    """Squared distance in units of the half axes: below 1 inside."""
    c, s = np.cos(turn), np.sin(turn)
    u, v = (X - x) * c + (Y - y) * s, (Y - y) * c - (X - x) * s
    return np.asarray((u / a) ** 2 + (v / b) ** 2, np.float32)


def _limb(
    hu: Picture,
    rng: np.random.Generator,
    x: float,
    y: float,
    r: float,
    bone: float,
    out: float = 0.0,
    flat: float = 1.0,
) -> None:
    """Skin, fat, muscles with septa of fat, one hollow bone (`out` mm aside), vessels."""
    b, turn = r * flat * rng.uniform(0.85, 1.1), rng.uniform(-0.5, 0.5) * flat
    fat = rng.uniform(3, 0.35 * r)
    hu[_ellipse(x, y, r, b, turn) < 1] = rng.normal(-100, 8)
    inner = _ellipse(x, y, r - fat, b - fat, turn) < 1
    hu[inner] = rng.normal(58, 8)
    bx, by = x + out + rng.normal(0, 0.18 * r), y + rng.normal(0.1 * r, 0.15 * r)
    for _ in range(int(rng.integers(2, 6))):
        angle = rng.uniform(0, np.pi)
        line = (X - bx) * np.sin(angle) + (Y - by) * np.cos(angle) + rng.normal(0, 0.3 * r)
        hu[inner & (np.abs(line) < rng.uniform(1, 4))] = -60
    ring = _ellipse(bx, by, bone, bone * rng.uniform(0.85, 1.1))
    hu[ring < 1] = rng.uniform(500, 1100)
    hu[ring < rng.uniform(0.2, 0.55)] = rng.uniform(-60, 120)
    for _ in range(2):
        vessel = _ellipse(x + rng.normal(0, 0.3 * r), y + rng.normal(0, 0.3 * r), 4.5, 4.5) < 1
        hu[inner & vessel] = rng.uniform(40, 250)


def thighs(rng: np.random.Generator) -> Picture:
    """Both thighs (touching above, apart below), or the lower legs."""
    if rng.random() < 0.65:
        return upper_thighs(rng)
    hu = np.full((SIDE, SIDE), AIR, np.float32)
    r = rng.uniform(48, 100)
    gap = rng.uniform(-0.25 * r, 60)
    bone = rng.uniform(11, 17) if rng.random() < 0.8 else rng.uniform(18, 30)
    y = rng.normal(0, 12)
    for side in (1, -1):
        x = side * (r + gap / 2) + rng.normal(0, 4)
        _limb(hu, rng, x, y + rng.normal(0, 8), r * rng.uniform(0.95, 1.05), bone)
    if rng.random() < 0.35:  # genitals between the thighs
        a = rng.uniform(15, 35)
        hu[_ellipse(rng.normal(0, 8), y + rng.uniform(0.3, 1.0) * r, a, a) < 1] = rng.normal(40, 10)
    if rng.random() < 0.2:
        hands(hu, rng)
    return bed(hu, rng)


def upper_thighs(rng: np.random.Generator) -> Picture:
    """Just below the pelvis: two wide thighs that touch, fat and perineum between them."""
    hu = np.full((SIDE, SIDE), AIR, np.float32)
    r, y = rng.uniform(72, 108), rng.normal(0, 10)
    bone, flat = rng.uniform(12, 18), rng.uniform(0.6, 0.95)
    low, split = y - rng.uniform(0.2, 0.8) * r, rng.uniform(1, 9)
    middle = rng.uniform(-110, 60)
    for side in (1, -1):
        drawn = np.full((SIDE, SIDE), AIR, np.float32)
        x = side * r * rng.uniform(0.84, 0.98)
        _limb(drawn, rng, x, y, r, bone, side * rng.uniform(0.1, 0.45) * r, flat)
        own = (drawn > -500) & (side * X > -2)
        hu[own] = drawn[own]
    between = (np.abs(X) < 0.5 * r) & (np.abs(Y - y) < rng.uniform(0.3, 0.75) * r) & (hu < -500)
    hu[between] = middle
    hu[(np.abs(X) < split) & (low > Y)] = AIR  # the cleft
    if rng.random() < 0.4:  # ends of the ischial bones
        for side in (1, -1):
            strip = _ellipse(side * rng.uniform(28, 55), y - rng.uniform(0, 30), 6, 17, side * 0.6)
            hu[strip < 1] = rng.uniform(300, 800)
    if rng.random() < 0.6:
        a = rng.uniform(12, 32)
        hu[_ellipse(rng.normal(0, 6), y + rng.uniform(0.5, 1.0) * r, a, 1.2 * a) < 1] = 40
    if rng.random() < 0.2:
        hands(hu, rng)
    return bed(hu, rng)


def sick_chest(hu: Picture, rng: np.random.Generator) -> None:
    """Effusions that fill the rear of the lungs, and consolidated parts of them, in place."""
    lung = (hu < -500) & (hu > -960)
    if lung.sum() < 60:
        return
    depth = np.quantile(Y[lung], rng.uniform(0.05, 0.5))
    sides = [s for s in (1, -1) if rng.random() < 0.6]
    for side in sides:
        hu[lung & (side * X > 0) & (depth > Y)] = rng.uniform(5, 70)
    for _ in range(int(rng.integers(0, 4))):
        k = int(rng.integers(int(lung.sum())))
        at = X[lung][k], Y[lung][k]
        part = _ellipse(*at, rng.uniform(10, 45), rng.uniform(10, 45), rng.uniform(0, 3)) < 1
        hu[lung & part] = rng.uniform(-450, 60)


def head(rng: np.random.Generator) -> Picture:
    """Skull and brain, or the face, or the neck."""
    hu = np.full((SIDE, SIDE), AIR, np.float32)
    kind = rng.random()
    if kind < 0.5:
        a, b, t = rng.uniform(62, 80), rng.uniform(80, 102), rng.uniform(-0.2, 0.2)
        hu[_ellipse(0, 0, a, b, t) < 1] = rng.normal(20, 20)
        hu[_ellipse(0, 0, a - 5, b - 5, t) < 1] = rng.uniform(600, 1200)
        brain = _ellipse(0, 0, a - 12, b - 12, t) < 1
        hu[brain] = rng.normal(35, 3)
        for side in (1, -1):
            hu[brain & (_ellipse(side * 14, rng.normal(0, 8), 7, 24, side * 0.3) < 1)] = 8
        if rng.random() < 0.4:  # the base: petrous bones, sinuses
            hu[brain & (np.abs(Y + 5 - 0.4 * np.abs(X)) < 9)] = rng.uniform(400, 900)
            hu[_ellipse(0, 0.8 * b, 20, 14) < 1] = AIR
    else:
        a, b = rng.uniform(52, 75), rng.uniform(58, 95)
        hu[_ellipse(0, 0, a, b) < 1] = rng.normal(-80, 20)
        hu[_ellipse(0, 0, a - 6, b - 6) < 1] = rng.normal(50, 10)
        hu[_ellipse(0, -0.2 * b, 13, 10) < 1] = rng.uniform(300, 700)  # vertebra
        hu[_ellipse(0, 0.15 * b, rng.uniform(6, 12), rng.uniform(6, 14)) < 1] = AIR  # airway
        if kind > 0.7:  # jaw and teeth
            arc = _ellipse(0, 0.25 * b, 0.7 * a, 0.6 * b)
            hu[(arc > 0.75) & (arc < 1) & (0.1 * b < Y)] = rng.uniform(700, 1500)
        for side in (1, -1):
            hu[_ellipse(side * 0.45 * a, 0.0, 5, 5) < 1] = rng.uniform(50, 300)
    return bed(hu, rng)


def hands(hu: Picture, rng: np.random.Generator) -> None:
    """Arms or hands beside or on the body, in place."""
    for side in (1, -1):
        if rng.random() < 0.75:
            x, y, r = side * rng.uniform(165, 205), rng.normal(0, 40), rng.uniform(22, 50)
            free = hu < -500
            drawn = np.full_like(hu, AIR)
            _limb(drawn, rng, x, y, r, rng.uniform(8, 12))
            hu[free] = np.maximum(hu, drawn)[free]


def bed(hu: Picture, rng: np.random.Generator) -> Picture:
    """The patient table behind the body, more or less curved."""
    if rng.random() < 0.7:
        low = float(Y[hu > -300].min()) if (hu > -300).any() else -100.0
        line = Y - (low - rng.uniform(2, 40) + X**2 / (2 * rng.uniform(350, 2000)))
        hu[(np.abs(line) < 3) & (np.abs(X) < 210) & (hu < -500)] = rng.uniform(-400, 100)
    return hu
