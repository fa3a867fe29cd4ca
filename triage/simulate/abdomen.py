"""Injuries of bowel and mesentery, and free air.

Each function changes a `Canvas`: HU of the ideal image, the lesion mask of its target, the truth;
False where it found no room or would not be seen. All distances in mm, attenuation in HU.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.canvas import GUT, Canvas
from triage.simulate.contrast import random_voxels
from triage.simulate.fields import blur, depth_mm, empty, member
from triage.simulate.scene import sub_box
from triage.simulate.shapes import Box, distance, grown, offset, soft
from triage.simulate.spaces import peritoneal_fat
from triage.simulate.tissues import Tissue
from triage.types import Target

LUMEN = (Tissue.BOWEL_CONTENT, Tissue.COLON_CONTENT, Tissue.GAS)
Point = NDArray[np.float64]


def loop(c: Canvas, box: Box, where: Point) -> Tensor | None:
    """The lumen nearest to a point, alone: bool (x, y, z); None where there is none."""
    from scipy.ndimage import label

    parts, count = label(member(c.scene.labels[box], LUMEN).cpu().numpy())
    if count == 0:
        return None
    found = torch.from_numpy(parts).to(c.hu.device)
    away = torch.where(found > 0, distance(c.local(box), where), torch.tensor(1e4))
    nearest = int(found.flatten()[int(away.argmin())])
    lumen = found == nearest
    return lumen if float(lumen.sum()) * c.scene.grid.voxel_ml > 2 else None


def bowel_wall(c: Canvas, where: Point) -> bool:
    """A segment with a thick wall all around, and stranding of its mesentery."""
    length = c.draw("wall.length_mm")
    box = c.scene.grid.box(tuple(where), 0.75 * length + 10)
    lumen = None if empty(box) else loop(c, box, where)
    if lumen is None:
        return False
    edit = c.edit(box)
    wall = thick_wall(c, edit.box, lumen, where, c.draw("wall.thickness_mm"), length)
    share, ring = wall
    if c.chance("wall.haematoma_p"):
        value = c.draw("blood.clotted_hu") + 6 * c.noise(box, 6)
    else:  # target: bright mucosa, grey submucosa
        bright = c.table[Tissue.BOWEL_WALL] + c.draw("wall.enhancement_hu")
        grey = c.draw("wall.oedema_hu")
        value = grey + (bright - grey) * ring + 4 * c.noise(box, 5)
    fat = c.inner_fat[box]
    near = soft(distance(c.local(box), where) - 0.5 * length + 4 * c.noise(box, 12), 6.0)
    c.strand(edit, fat, near, c.draw("stranding.hu"), lesion=True)
    edit.blend(share, value)
    if not bool((share > 0.5).any()) or float(edit.after[share > 0.5].mean()) < 10:
        return False
    host = (member(c.scene.labels[box], GUT) | fat) & (c.scene.labels[box] != int(Tissue.GAS))
    return c.finish(
        edit, host & (edit.before > -250), Target.BOWEL, "wall_thickening", 1, organ="bowel"
    )


def thick_wall(
    c: Canvas, box: Box, lumen: Tensor, where: Point, thick: float, length: float
) -> tuple[Tensor, Tensor]:
    """Share of a thick wall around a lumen, and of its inner lining: (x, y, z) in 0 to 1 each."""
    depth = depth_mm(lumen, c.scene.grid.spacing)
    inward = min(0.5 * thick, 0.65 * float(depth.max()))  # some lumen stays open
    outward = thick - inward
    room = member(c.scene.labels[box], GUT) | c.inner_fat[box]
    room &= ~(member(c.scene.labels[box], LUMEN) & ~lumen)  # not the loops beside it
    rough = 0.5 * c.noise(box, 7)
    along = soft(distance(c.local(box), where) - 0.5 * length + 3 * c.noise(box, 15), 2.5)
    shell = torch.maximum(depth - inward, -depth - outward) + rough
    share = torch.where(room, soft(shell, 0.9) * (along > 0.5), 0.0)
    lining = soft((depth - inward + 1.3).abs() - 1.3, 0.8)
    return share, lining


def mesenteric(c: Canvas, where: Point) -> bool:
    """Blood between the leaves of the mesentery, with stranding around; follows the fat."""
    diameter = c.draw("mesentery.diameter_mm")
    box = c.scene.grid.box(tuple(where), 1.05 * diameter + 10)
    if empty(box):
        return False
    fat = c.inner_fat[box]
    away = distance(c.local(box), where)
    rough = 0.22 * c.noise(box, 12) + 0.12 * c.noise(box, 5)
    edit = c.edit(box)
    reach = soft(away - 0.8 * diameter * (1 + 0.5 * rough), 5.0)
    c.strand(edit, fat, reach, c.draw("stranding.hu"), lesion=True)
    shape = away - diameter / 2 * (1 + rough)
    edit.blend(torch.where(fat, soft(shape, 1.5), 0.0), c.blood(edit, fat))
    return c.finish(edit, fat, Target.BOWEL, "mesenteric_haematoma", 1, organ="mesentery")


def interloop(c: Canvas, where: Point) -> bool:
    """Fluid in the clefts between loops: triangles with concave sides."""
    box = c.scene.grid.box(tuple(where), 45)
    if empty(box):
        return False
    fat = c.inner_fat[box] & (c.hu[box] < 0)
    if not bool(fat.any()):
        return False
    crowd = blur(member(c.scene.labels[box], GUT).float(), c.scene.grid.spacing, 5.0)
    score = crowd - 0.02 * distance(c.local(box), where) + 0.04 * c.noise(box, 14)
    wanted = int(c.draw("interloop.ml") / c.scene.grid.voxel_ml)
    values = score[fat].sort(descending=True).values
    limit = float(values[min(wanted, len(values) - 1)])
    fluid = fat & (score > limit)
    edit = c.edit(box)
    share = blur(fluid.float(), c.scene.grid.spacing, 0.8) * fat
    edit.blend(share, c.draw("interloop.hu") + 3 * c.noise(box, 12))
    return c.finish(edit, fat, Target.BOWEL, "interloop_fluid", 1, organ="mesentery")


def free_air(c: Canvas) -> bool:
    """Free gas where it rises to in the supine patient: under the anterior wall, flat behind."""
    cavity = peritoneal_fat(c.scene, c.inner_fat)
    box = sub_box(cavity, 2)
    if box is None:
        return False
    region = cavity[box]
    y = c.scene.grid.axis(1)[box[1]][None, :, None].expand(region.shape)
    front = torch.where(region, y, torch.tensor(-1e4)).amax(1)  # (x, z)
    seen = front > -1e3
    high = seen & (front > torch.quantile(front[seen], 0.8))
    spots = high.nonzero()
    done = False
    for _ in range(c.count("air.pockets")):
        i, k = (int(v) for v in spots[c.dice.integer(0, len(spots) - 1)])
        where = c.scene.grid.world([i + box[0].start, 0, k + box[2].start])
        where[1] = float(front[i, k])
        done |= _pocket(c, cavity, where)
    return done


def _pocket(c: Canvas, cavity: Tensor, where: Point) -> bool:
    wide, thick = c.draw("air.width_mm"), c.draw("air.thickness_mm")
    box = c.scene.grid.box(tuple(where), (0.6 * wide, 25, 0.6 * wide))
    room = cavity[box]
    edit = c.edit(box)
    d = offset(c.local(box), where)
    front = torch.where(room, d[1], torch.tensor(-1e4)).amax(1, keepdim=True)
    plane = c.dice.uniform(0.5, 0.9) * wide
    across = torch.sqrt(d[0] ** 2 + (d[2] * wide / plane) ** 2) - 0.5 * wide + 3 * c.noise(box, 9)
    level = -d[1] - thick  # the fluid or fat below is level
    near_wall = front - d[1] - 1.3 * thick
    gas = torch.maximum(torch.maximum(across, level), near_wall)
    edit.blend(torch.where(room, soft(gas, 0.6), 0.0), c.draw("air.hu"))
    return c.finish(
        edit, room, Target.BOWEL, "free_air", 1, organ="bowel", least_ml="visible.blush_ml"
    )


def bubbles(c: Canvas, where: Point) -> None:
    """Small gas bubbles in the fat beside an injured loop."""
    box = c.scene.grid.box(tuple(where), 28)
    if empty(box):
        return
    fat = c.inner_fat[box] & grown(member(c.scene.labels[box], GUT), c.scene.grid.spacing, 6)
    points = random_voxels(fat, c.scene.grid, c.dice, c.count("air.bubbles"))
    corner = [s.start * p for s, p in zip(box, c.scene.grid.spacing, strict=True)]
    for p in points:
        small = c.scene.grid.box(tuple(p + corner), 5)
        edit = c.edit(small)
        size = distance(c.local(small), p + corner) - c.dice.uniform(1.2, 3.0)
        edit.blend(torch.where(c.inner_fat[small], soft(size, 0.6), 0.0), c.draw("air.hu"))
        c.finish(
            edit,
            c.inner_fat[small],
            Target.BOWEL,
            "free_air",
            1,
            organ="bowel",
            least_ml="visible.blush_ml",
        )
