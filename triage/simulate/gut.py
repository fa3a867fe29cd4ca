"""The digestive tract of a parametric person, and the organs of the pelvis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triage.simulate.fields import Dice
from triage.simulate.painter import Painter, Triple
from triage.simulate.tissues import Tissue

FAT = (Tissue.FAT,)
COLON = ((0.0, Tissue.COLON_WALL), (-2.0, Tissue.COLON_CONTENT))
LOOP = ((0.0, Tissue.BOWEL_WALL), (-2.3, Tissue.BOWEL_CONTENT))


def paint_gut(p: Painter) -> None:
    """Pancreas, stomach, duodenum, colon, pelvic organs, then small bowel where there is room."""
    d = p.dice
    plump = d.uniform(0.75, 1.15)
    pancreas = [
        (30, 10, 44),
        (32, 12, 60),
        (14, 14, 76),
        (-16, 6, 79),
        (-44, -12, 84),
        (-68, -26, 92),
    ]
    radii = [plump * r for r in (10, 13, 9, 9, 8.5, 8)]
    p.tube(pancreas, radii, ((0.0, Tissue.PANCREAS),), sd=3, rough=2.2, within=True)
    _stomach(p)
    duodenum = [(30, 28, 76), (46, 18, 74), (52, 4, 52), (48, -8, 18), (18, -6, 2), (-18, 0, 12)]
    p.tube([*duodenum, (-30, 14, 34)], d.uniform(8, 13), LOOP, rough=0.8, within=True)
    for line, radius in _colon_lines(d):
        widths = [radius * d.uniform(0.7, 1.25) for _ in line]
        if d.chance(0.2):  # a collapsed part
            widths = [min(w, 9.0) for w in widths]
        p.tube(line, widths, COLON, sd=5, rough=0.9, waves=(0.2, d.uniform(22, 34)), within=True)
    _pelvis(p)
    _small_bowel(p)


def _stomach(p: Painter) -> None:
    d = p.dice
    full = d.uniform(0.55, 1.25)
    nodes = [
        (-28, -4, 158),
        (-62, -6, 150),
        (-66, 10, 122),
        (-50, 40, 92),
        (-14, 52, 74),
        (28, 34, 76),
    ]
    radii = [10, 30 * full, 32 * full, 25 * full, 16 * full + 2, 8]
    wall = d.uniform(3.0, 5.0)
    layers = ((0.0, Tissue.STOMACH_WALL), (-wall, Tissue.STOMACH_CONTENT))
    path = p.tube(nodes, radii, layers, (Tissue.FAT, Tissue.MUSCLE), rough=1.6, within=True)
    level = float(np.quantile(path[:, 1], d.uniform(0.3, 1.0)))
    content = p.labels == int(Tissue.STOMACH_CONTENT)
    front = (p.grid.axis(1) > level)[None, :, None]
    p.labels.masked_fill_(content & front, int(Tissue.GAS))


def _pelvis(p: Painter) -> None:
    """Bladder, uterus and ovaries or prostate and seminal vesicles; femoral canals stay fat."""
    d = p.dice
    full = d.uniform(0.45, 1.25)
    centre = p.jitter((0, 26, -182), 3)
    wide = (38 * full, 30 * full, 30 * full)
    wall = 2.0 + 2.5 * (1.2 - full)
    outer = (wide[0] + wall, wide[1] + wall, wide[2] + wall)
    p.blob(Tissue.SOFT, centre, outer, inside=FAT, tilt=3, rough=0.04)
    p.blob(Tissue.BLADDER, centre, wide, inside=(Tissue.SOFT,), tilt=0, rough=0.04)
    if p.person.female:
        p.blob(Tissue.SOFT, p.jitter((0, -6, -160), 5), (28, 20, 26), inside=FAT, tilt=15)
        p.blob(Tissue.SOFT, p.jitter((0, -12, -198), 3), (17, 9, 22), inside=FAT)
        for side in (1, -1):
            p.blob(Tissue.SOFT, p.jitter((side * 42, -14, -152), 6), (14, 10, 12), inside=FAT)
    else:
        p.blob(Tissue.SOFT, p.jitter((0, 8, -212), 2), (23, 18, 17), inside=FAT)
        for side in (1, -1):
            p.blob(Tissue.SOFT, p.jitter((side * 17, -8, -194), 2), (16, 5, 7), inside=FAT)
    for side in (1, -1):  # levator ani
        line = [(side * 44, -12, -195), (side * 28, -26, -215), (side * 12, -40, -232)]
        p.tube(line, 3.0, ((0.0, Tissue.MUSCLE),), FAT, sd=1)


def _small_bowel(p: Painter) -> None:
    """Loops packed into the free room of the middle and lower abdomen.

    Points at about a loop's width apart are joined to chains; a loop takes only room that is free,
    so that neighbours share a wall.
    """
    d = p.dice
    gap = 19 + 7 * p.person.visceral + d.uniform(-1.5, 4)
    free = _room(p, gap)
    d.rng.shuffle(free)
    keep = free[: round(len(free) * d.uniform(0.75, 1.0))]
    placed = p.place(keep) if len(keep) else keep
    size = d.uniform(0.85, 1.1)
    for chain in _chains(placed, 2.2 * gap):
        base = 0.56 * gap * size
        for start in range(0, len(chain) - 1, 4):
            piece = chain[start : start + 5]
            if len(piece) < 2:
                continue
            state = d.uniform(0, 1)
            factor = 0.6 if state < 0.15 else d.uniform(0.8, 1.12)
            radii = [base * factor * d.uniform(0.85, 1.15) for _ in piece]
            over = (Tissue.FAT, Tissue.BOWEL_WALL) if start else FAT
            layers = LOOP if not start else LOOP[:1]
            p.tube(piece, radii, layers, FAT, sd=2.0, rough=1.0, placed=True, within=True)
            if start:  # the lumen goes on through the end of the last piece
                p.tube(piece, radii, LOOP[1:], over, sd=0.0, rough=1.0, placed=True, within=True)


def _room(p: Painter, gap: float) -> NDArray[np.float64]:
    """Free places for loops, (n, 3) in standard coordinates, about `gap` mm apart."""
    d = p.dice
    step = gap / np.cbrt(float(np.prod(p.scale)))
    axes = [np.arange(low, high, step) for low, high in ((-95, 96), (-22, 92), (-172, 92))]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    grid[:, 1::2, :, 0] += step / 2
    grid[:, :, 1::2, 0] += step / 3
    points = grid.reshape(-1, 3) + d.rng.normal(0, 0.12 * step, (grid.size // 3, 3))
    x, y, z = points.T
    keep = (x / 98) ** 2 + ((z + 58) / 112) ** 2 < 1.0
    keep |= (x < 0) & (x > -80) & (z < 92) & (y > 8)  # jejunum on the left, below the stomach
    keep &= y > np.where(z > -90, 0 - 0.2 * np.abs(x), -30)
    keep &= ~((np.abs(x - 5) < 20) & (y < 24) & (z > -35))  # root of the mesentery
    points = np.asarray(points[keep])
    if len(points) == 0:
        return points
    kept = []
    for point, at in zip(points, p.place(points), strict=True):
        ijk = p.grid.index(at.tolist())
        within = np.abs(p.grid.world(ijk) - at).max() <= 4  # of the scan
        omentum = (1 + 16 * p.person.visceral) * max(0.0, float(point[1]) / 90)
        if within and int(p.labels[ijk]) == int(Tissue.FAT) and float(p.inner[ijk]) > 6 + omentum:
            kept.append(point)
    return np.asarray(kept).reshape(-1, 3)


def _chains(points: NDArray[np.float64], longest: float) -> list[NDArray[np.float64]]:
    """Join points to chains by going to the nearest one that is left."""
    left = list(range(len(points)))
    chains = []
    while left:
        chain = [left.pop(0)]
        while left:
            away = np.linalg.norm(points[left] - points[chain[-1]], axis=1)
            k = int(np.argmin(away))
            if away[k] > longest:
                break
            chain.append(left.pop(k))
        if len(chain) > 1:
            chains.append(points[chain])
    return chains


def _colon_lines(d: Dice) -> list[tuple[Sequence[Triple], float]]:
    sag = d.uniform(-60, 30)
    right: list[Triple] = [
        (80, 20, -112),
        (94, 10, -70),
        (100, -8, -15),
        (94, -6, 30),
        (88, 12, 44),
    ]
    across: list[Triple] = [(86, 22, 40), (56, 66, 24 + 0.5 * sag), (0, 78, 8 + sag)]
    across += [(-52, 68, 30 + 0.5 * sag), (-92, 30, 78), (-102, 4, 96)]
    left: list[Triple] = [(-104, -6, 90), (-108, -26, 30), (-106, -20, -40), (-94, 4, -92)]
    loop = d.uniform(-25, 35)
    sigmoid: list[Triple] = [(-90, 12, -100), (-60, 24, -132), (-15 + loop, 22, -122 + loop)]
    sigmoid += [(8, -22, -130), (2, -52, -150), (0, -58, -180), (0, -46, -215), (0, -50, -238)]
    size = d.uniform(13, 21)
    return [(right, size * 1.25), (across, size), (left, size * 0.85), (sigmoid, size * 0.8)]
