"""Harmless things that are brighter than blood, of bowel and vessels, and of breathing.

Drawn for the injured and the healthy alike: stones, metal, calcifications, collapsed bowel, oral
contrast, diverticula, unmixed blood in the veins, the doubled dome of a breath.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.abdomen import LUMEN, loop
from triage.simulate.canvas import ORGAN, Canvas
from triage.simulate.contrast import centre_of, random_voxels
from triage.simulate.fields import empty, member
from triage.simulate.scene import sub_box
from triage.simulate.shapes import distance, grown, soft
from triage.simulate.tissues import Tissue
from triage.simulate.tubes import smooth_path
from triage.types import Phase

Point = NDArray[np.float64]


def _dots(c: Canvas, where: Tensor, count: int, radius: tuple[float, float], key: str) -> int:
    """Small round bright things at random points of a mask; returns how many."""
    points = random_voxels(where, c.scene.grid, c.dice, count)
    for p in points:
        size = c.dice.uniform(*radius)
        box = c.scene.grid.box(tuple(p), size + 3)
        share = soft(distance(c.local(box), p) - size, 0.6)
        edit = c.edit(box)
        edit.blend(share, c.draw(key))
        c.put(edit)
    return len(points)


def clips(c: Canvas) -> bool:
    """Metal clips: tiny and far brighter than contrast."""
    count = _dots(c, c.inner_fat, c.count("clip.count"), (0.8, 2.0), "clip.hu")
    c.lesions.append({"target": None, "kind": "clip", "count": count})
    return count > 0


def granulomas(c: Canvas) -> bool:
    """Old calcified granulomas of spleen or liver."""
    found = c.organ("spleen" if c.dice.chance(0.6) else "liver")
    if found is None:
        return False
    where = torch.zeros_like(c.hu, dtype=torch.bool)
    where[found[0]] = found[1] & (found[2] > 3)
    count = _dots(c, where, c.count("granuloma.count"), (0.8, 2.5), "granuloma.hu")
    c.lesions.append({"target": None, "kind": "granuloma", "count": count})
    return count > 0


def phleboliths(c: Canvas) -> bool:
    """Calcified veins of the pelvis."""
    low = c.scene.grid.axis(2)[None, None, :] < float(c.scene.grid.axis(2)[0]) + 60
    count = _dots(c, c.inner_fat & low, c.count("phlebolith.count"), (1.2, 2.8), "phlebolith.hu")
    c.lesions.append({"target": None, "kind": "phlebolith", "count": count})
    return count > 0


def gallstones(c: Canvas) -> bool:
    """Stones on the floor of the gallbladder."""
    bag = c.scene.labels == int(Tissue.GALLBLADDER)
    box = sub_box(bag, 2)
    if box is None or int(bag.sum()) < 30:
        return False
    y = c.local(box)[1]
    inside = bag[box]
    floor = inside & (y < torch.quantile(y[inside], 0.35))
    edit = c.edit(box)
    hu = c.draw("gallstone.hu")
    for p in random_voxels(floor, c.scene.grid, c.dice, c.dice.integer(1, 6)):
        where = p + [s.start * q for s, q in zip(box, c.scene.grid.spacing, strict=True)]
        size = c.draw("gallstone.radius_mm")
        share = soft(distance(c.local(box), where) - size, 0.6)
        edit.blend(torch.where(inside, share, 0.0), hu)
    return c.apply(edit, "gallstone")


def stent(c: Canvas) -> bool:
    """A ureter stent from kidney to bladder, or one of the bile duct: a thin bright tube."""
    side = "right" if c.dice.chance(0.5) else "left"
    kidney = centre_of(c.scene, ORGAN[f"kidney_{side}"])
    duct = c.dice.chance(0.4)
    start = centre_of(c.scene, (Tissue.LIVER,)) if duct else kidney
    end = centre_of(c.scene, (Tissue.PANCREAS if duct else Tissue.BLADDER,))
    if start is None or end is None:
        return False
    middle = 0.5 * (start + end) + c.dice.rng.normal(0, 6, 3)
    if duct:  # from the hilum, not from the middle of the liver
        start = middle + 0.5 * (start - middle)
    else:
        middle[:2] = start[0] + 0.4 * (c.middle - start[0]), start[1] + 12
    path = smooth_path(np.asarray([start, middle, end]), 3.0)
    value = c.draw("stent.hu")
    for p in path:
        box = c.scene.grid.box(tuple(p), 5)
        if empty(box):
            continue
        ring = (distance(c.local(box), p) - 1.2).abs() - 0.5
        edit = c.edit(box)
        edit.blend(0.7 * soft(ring, 0.6), value)
        edit.after = torch.maximum(edit.after, edit.before)
        c.put(edit)
    c.lesions.append({"target": None, "kind": "bile_stent" if duct else "ureter_stent"})
    return True


def hip_metal(c: Canvas) -> bool:
    """A hip prosthesis, or its upper end, with rays of too few photons."""
    kidneys = [centre_of(c.scene, ORGAN[name]) for name in ("kidney_right", "kidney_left")]
    levels = [float(kidney[2]) for kidney in kidneys if kidney is not None]
    if not levels:
        return False
    # about the hip joints; a kidney that has sunken says nothing about them
    low = c.scene.grid.axis(2)[None, None, :] < max(levels) - 180
    side = c.scene.grid.axis(0)[:, None, None] - c.middle
    lateral = (side > 60) if c.dice.chance(0.5) else (side < -60)
    points = random_voxels(
        (c.scene.labels == int(Tissue.BONE)) & low & lateral, c.scene.grid, c.dice, 1
    )
    if len(points) == 0:
        return False
    p = points[0]
    box = c.scene.grid.box(tuple(p), (400.0, 400.0, 22.0))
    x, y, _ = c.local(box)
    dx, dy = x - float(p[0]), y - float(p[1])
    flat = torch.sqrt(dx**2 + dy**2).clamp_min(1.0)
    rays = torch.cos(7 * torch.atan2(dy, dx) + c.dice.uniform(0, 6))
    body = c.hu[box] > -300
    edit = c.edit(box)
    fall = torch.exp(-flat / 70) * c.dice.uniform(60, 200)
    edit.after = torch.where(body, edit.after + rays * fall, edit.after)
    edit.blend(soft(distance(c.local(box), p) - c.dice.uniform(12, 22), 1.0), 3000.0)
    return c.apply(edit, "hip_metal")


def collapsed(c: Canvas) -> bool:
    """A loop without content: it looks thick, but enhances as usual, and its fat is clean."""
    wall = member(c.scene.labels, (Tissue.BOWEL_WALL, Tissue.COLON_WALL))
    points = random_voxels(wall, c.scene.grid, c.dice, 1)
    if len(points) == 0:
        return False
    length = c.draw("collapsed.length_mm")
    box = c.scene.grid.box(tuple(points[0]), 0.7 * length)
    lumen = loop(c, box, points[0])
    if lumen is None:
        return False
    near = soft(distance(c.local(box), points[0]) - 0.5 * length, 2.0)
    value = c.table[Tissue.BOWEL_WALL] - 6 + 8 * c.noise(box, 4)
    edit = c.edit(box)
    edit.blend(torch.where(lumen, near, 0.0), value)
    return c.apply(edit, "collapsed_loop")


def oral_blob(c: Canvas) -> bool:
    """Swallowed contrast on the floor of some loops: bright, but inside the bowel."""
    inside = member(c.scene.labels, (Tissue.BOWEL_CONTENT, Tissue.COLON_CONTENT))
    points = random_voxels(inside, c.scene.grid, c.dice, c.dice.integer(1, 4))
    for p in points:
        box = c.scene.grid.box(tuple(p), 22)
        lumen = member(c.scene.labels[box], LUMEN) & (c.hu[box] > -200)
        level = c.local(box)[1] - float(p[1])
        far = distance(c.local(box), p) - c.dice.uniform(8, 18)
        edit = c.edit(box)
        edit.blend(
            torch.where(lumen, soft(torch.maximum(level, far), 0.8), 0.0), c.draw("oral_blob.hu")
        )
        c.apply(edit, "oral_contrast")
    return len(points) > 0


def diverticula(c: Canvas) -> bool:
    """Pouches of gas on the outside of the colon, each with its own wall."""
    colon = c.scene.labels == int(Tissue.COLON_WALL)
    x = c.scene.grid.axis(0)[:, None, None]
    edge = colon & (x < c.middle) & grown(c.inner_fat, c.scene.grid.spacing, 2)
    points = random_voxels(edge, c.scene.grid, c.dice, c.count("diverticula.count"))
    for p in points:
        box = c.scene.grid.box(tuple(p), 9)
        room = c.inner_fat[box] | (c.scene.labels[box] == int(Tissue.COLON_WALL))
        away = distance(c.local(box), p) - c.dice.uniform(1.8, 3.2)
        edit = c.edit(box)
        edit.blend(torch.where(room, soft(away - 1.6, 0.5), 0.0), c.table[Tissue.COLON_WALL])
        edit.blend(torch.where(room, soft(away, 0.5), 0.0), -800.0)
        c.put(edit)
    c.lesions.append({"target": None, "kind": "diverticula", "count": len(points)})
    return len(points) > 0


def mixing(c: Canvas) -> bool:
    """Unenhanced blood of the legs in the lower vena cava, mixed with that of the kidneys."""
    if c.phase is Phase.PLAIN or c.scene.hu is not None:
        return False
    kidney = centre_of(c.scene, ORGAN["kidney_right"])
    veins = c.scene.labels == int(Tissue.VEIN)
    box = sub_box(veins & (c.scene.grid.axis(0)[:, None, None] - c.middle).abs().lt(70), 1)
    if kidney is None or box is None:
        return False
    z = c.local(box)[2]
    below = torch.sigmoid((float(kidney[2]) - z + 10 * c.noise(box, 20)) / 10)
    streams = (0.6 + 0.6 * c.noise(box, 7)).clamp(0, 1.2)
    loss = c.draw("mixing.loss_share") * (c.table[Tissue.VEIN] - 42)
    edit = c.edit(box)
    edit.after = torch.where(veins[box], edit.after - loss * below * streams, edit.after)
    return c.apply(edit, "mixing")


def dome(c: Canvas) -> bool:
    """A breath at the dome of the diaphragm: its outline is seen twice."""
    lung = c.scene.labels == int(Tissue.LUNG)
    liver = c.organ("liver")
    if liver is None or not bool(lung.any()):
        return False
    top = liver[0][2].stop
    n = max(1, round(c.draw("dome.shift_mm") / c.scene.grid.spacing[2]))
    low = max(top - round(40 / c.scene.grid.spacing[2]), n)
    if low >= c.hu.shape[2] - 1:
        return False
    box = (slice(0, c.hu.shape[0]), slice(0, c.hu.shape[1]), slice(low, c.hu.shape[2]))
    edit = c.edit(box)
    moved = c.hu[:, :, low - n : c.hu.shape[2] - n]
    share = torch.linspace(0, 1, edit.before.shape[2], device=c.hu.device).mul(6).clamp(
        0, 1
    ) * c.dice.uniform(0.3, 0.55)
    edit.blend(share.expand(edit.before.shape), moved, lesion=False)
    edit.kept = torch.ones_like(edit.kept)  # what moves in has its own grain
    return c.apply(edit, "breathing_dome")


SOMETIMES: dict[str, Callable[[Canvas], bool]] = {
    "gallstone.p": gallstones,
    "stent.p": stent,
    "clip.p": clips,
    "hip_metal.p": hip_metal,
    "collapsed.p": collapsed,
    "dome.p": dome,
    "oral_blob.p": oral_blob,
    "diverticula.p": diverticula,
    "phlebolith.p": phleboliths,
    "granuloma.p": granulomas,
    "mixing.p": mixing,
}
