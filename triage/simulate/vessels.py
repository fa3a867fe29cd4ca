"""The vessels of a parametric person, and trees that grow into organs and mesentery."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.fields import Dice, Grid, empty, sub_grid
from triage.simulate.painter import Painter
from triage.simulate.tissues import Tissue
from triage.simulate.tubes import paint_tube, path_box, smooth_path

Points = NDArray[np.float64]


def paint_vessels(p: Painter) -> None:
    """Aorta, caval vein, portal system, iliac, renal, splenic and mesenteric trunks."""
    d = p.dice
    fat = (Tissue.FAT,)
    over = (Tissue.FAT, Tissue.LIVER, Tissue.SOFT, Tissue.DISC, Tissue.LUNG, Tissue.MUSCLE)
    front = dict(
        zip((-42, 0, 45, 90, 135, 200, 290), (-24, -22, -24, -28, -34, -42, -46), strict=True)
    )
    r = d.uniform(7.5, 11)
    turn = d.normal(0, 4)
    aorta = [(-9.0 + turn * np.sin(z / 60), y, float(z)) for z, y in sorted(front.items())]
    p.tube(aorta, [0.85 * r, 0.9 * r, r, 1.1 * r, 1.15 * r, 1.2 * r, 1.25 * r], _AORTA, over, sd=1)
    collapse = d.uniform(0.7, 1.15)
    cava = [(17.0, -26.0, -46.0), (18, -24, 0), (19, -22, 45), (21, -18, 90), (24, -14, 125)]
    cava += [(22, -8, 155), (18, -2, 185), (14, 4, 205)]
    widths = [9, 9, 10, 11.5, 12, 12.5, 13, 13]
    p.tube(cava, [collapse * w for w in widths], ((0.0, Tissue.VEIN),), over, sd=1.5)
    for side in (1, -1):
        for nodes, radius, tissue in _LIMBS:
            line = [(side * a if i else a, b, c) for i, (a, b, c) in enumerate(nodes)]
            p.tube(line, radius, ((0.0, tissue),), (Tissue.FAT, Tissue.MUSCLE), sd=1.2)
        z = 36 if side > 0 else 46
        a = [(-8, -26, 56), (side * 26, -36, z + 6), (side * 50, -40, z)]
        p.tube(a, [3.2, 2.8, 2.4], ((0.0, Tissue.ARTERY),), fat, sd=1.5)
        v = [(18, -22, 50), (side * 14 + 4, -11, 50), (side * 32, -28, z + 2), (side * 54, -38, z)]
        v = v if side < 0 else [v[0], v[2], v[3]]
        p.tube(v, 4.6, ((0.0, Tissue.VEIN),), fat, sd=1)
    line = [(-9, -16, 76), (-8, -4, 66), (-6, 10, 40), (2, 18, -5), (16, 20, -40)]
    p.tube(line, [3.8, 3.8, 3.4, 3, 2], ((0.0, Tissue.ARTERY),), fat, sd=1)  # upper mesenteric
    line = [(10, 4, 78), (7, 10, 60), (6, 14, 40), (12, 20, -5), (24, 20, -42)]
    p.tube(line, [6.5, 6, 5.5, 4.5, 3], ((0.0, Tissue.PORTAL),), fat, sd=1)
    celiac = [(-9, -20, 92), (-8, -8, 92)]
    p.tube(celiac, 3.6, ((0.0, Tissue.ARTERY),), fat, sd=0.7)
    p.tube([(-8, -8, 92), (14, 2, 90), (34, 10, 92)], 2.6, ((0.0, Tissue.ARTERY),), fat, sd=2)
    p.tube([(10, 4, 80), (26, 6, 92), (42, 8, 106)], 7.0, ((0.0, Tissue.PORTAL),), _LIVER, sd=1.5)
    splenic = [(10, 4, 80), (-20, 0, 88), (-50, -20, 100), (-74, -32, 110), (-86, -30, 112)]
    p.tube(splenic, [5.5, 4.8, 4.5, 4, 3], ((0.0, Tissue.PORTAL),), fat, sd=2)
    line = [(-8, -8, 92), (-30, 4, 98), (-46, -10, 106), (-66, -22, 112), (-84, -28, 116)]
    p.tube(line, 2.6, ((0.0, Tissue.ARTERY),), fat, sd=3)
    p.tube([(-8, -14, -8), (-18, 2, -40), (-30, 0, -80)], 1.7, ((0.0, Tissue.ARTERY),), fat, sd=2)


_AORTA = ((0.0, Tissue.AORTA),)
_LIVER = (Tissue.FAT, Tissue.LIVER)
_LIMBS: tuple[tuple[tuple[tuple[float, float, float], ...], tuple[float, ...], Tissue], ...] = (
    (
        (
            (-8, -24, -38),
            (28, -28, -75),
            (44, -22, -110),
            (58, 8, -150),
            (70, 44, -200),
            (78, 46, -250),
        ),
        (6, 5.5, 5, 4.8, 4.6, 4.4),
        Tissue.ARTERY,
    ),
    (
        (
            (16, -27, -44),
            (30, -38, -82),
            (46, -32, -115),
            (54, 2, -155),
            (60, 40, -200),
            (68, 42, -250),
        ),
        (8, 6.8, 6.4, 6.4, 6, 5.6),
        Tissue.VEIN,
    ),
    (((36, -28, -84), (48, -48, -115), (52, -55, -140)), (4, 3.4, 3), Tissue.ARTERY),
    (((40, -38, -92), (54, -56, -118), (56, -62, -142)), (5, 4, 3), Tissue.VEIN),
)


def grow(root: Points, ends: Points, dice: Dice, *, bend: float = 0.1) -> list[Points]:
    """A vessel tree: paths (n, 4) of x, y, z in mm and relative radius, 1 at the trunk.

    `root` (m, 3): points of the trunk to start from. Ends join the nearest branch that lies nearer
    to the trunk; radii follow Murray's law (r^3 is shared among the branches).
    """
    nodes, parent = [np.asarray(q) for q in root], [-1] * len(root)
    away = [0.0] * len(root)
    near = np.linalg.norm(ends[:, None] - root[None], axis=2).min(1)
    tips = []
    for i in np.argsort(near):
        end = ends[i]
        gaps = np.linalg.norm(np.asarray(nodes) - end, axis=1)
        cost = gaps + 0.35 * np.asarray(away)
        j = int(np.argmin(cost))
        steps = max(2, round(gaps[j] / 12))
        side = dice.rng.normal(0, bend * gaps[j], 3)
        for k in range(1, steps + 1):
            t = k / steps
            nodes.append(nodes[j] + t * (end - nodes[j]) + side * t * (1 - t) * 2)
            parent.append(len(nodes) - 2 if k > 1 else j)
            away.append(away[j] + t * gaps[j])
        tips.append(len(nodes) - 1)
    load = np.zeros(len(nodes))
    for tip in tips:
        k = tip
        while k >= 0:
            load[k] += 1
            k = parent[k]
    size = (load / max(load.max(), 1)) ** (1 / 3)
    done: set[int] = set()
    paths = []
    for tip in reversed(tips):
        chain, k = [], tip
        while k >= 0 and k not in done:
            chain.append(k)
            done.add(k)
            k = parent[k]
        if k >= 0:
            chain.append(k)
        chain.reverse()
        line = np.array([[*nodes[c], size[c]] for c in chain])
        if len(line) > 1:
            line[0, 3] = min(line[0, 3], line[1, 3] * 1.1)
            paths.append(line)
    return paths


def coverage(
    grid: Grid, paths: list[Points], trunk_mm: float, least_mm: float
) -> tuple[tuple[slice, slice, slice], Tensor] | None:
    """Share of each voxel that a tree fills, (x, y, z) in [0, 1], and the box it lies in.

    Vessels thinner than a voxel fill part of it, so that they fade instead of breaking up.
    """
    if not paths:
        return None
    whole = np.vstack(paths)[:, :3]
    box = path_box(grid, whole, trunk_mm + 3)
    if empty(box):
        return None
    part = sub_grid(grid, box)
    distance = torch.full(part.shape, 1e3, device=torch.device(grid.device))
    voxel = float(np.prod(grid.spacing)) ** (1 / 3)
    for line in paths:
        fine = smooth_path(line, 1.1 * voxel)
        radii = np.maximum(trunk_mm * fine[:, 3], least_mm)
        paint_tube(distance, part, fine[:, :3], radii, 0.6 * voxel)
    return box, (0.5 - distance / voxel).clamp(0, 1)
