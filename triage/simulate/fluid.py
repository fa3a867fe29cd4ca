"""Free fluid of the peritoneal cavity, and active extravasation.

All distances in mm, attenuation in HU, coordinates RAS+.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.canvas import Canvas
from triage.simulate.fields import blur, empty, member
from triage.simulate.scene import sub_box
from triage.simulate.shapes import distance, grown, soft
from triage.simulate.spaces import peritoneal_fat, recesses
from triage.simulate.tissues import Tissue
from triage.types import Phase, Target

SOLID_WALLS = (
    Tissue.BONE,
    Tissue.VERTEBRA,
    Tissue.GAS,
    Tissue.LUNG,
    Tissue.AIR,
    Tissue.AORTA,
    Tissue.ARTERY,
    Tissue.SKIN,
)
Point = NDArray[np.float64]


def free_fluid(c: Canvas, amount: float, hu: float, kind: str) -> bool:
    """Fluid in the recesses, dependent first: Morison's pouch, perisplenic, gutters, pelvis.

    `amount` in (0, 1]: from a trace to filling the recesses.
    """
    cavity = peritoneal_fat(c.scene, c.inner_fat)
    box = sub_box(cavity, 0)
    if box is None:
        return False
    region = cavity[box] & (c.hu[box] < 0)
    if int(region.sum()) < 50:
        return False
    score = recesses(c.scene, box) + 0.6 * c.noise(box, 25)
    values = score[region][:: max(1, int(region.sum()) // 50000)]
    limit = float(torch.quantile(values, 1 - 0.55 * amount))
    fluid = region & (score > limit)
    share = blur(fluid.float(), c.scene.grid.spacing, 1.2)
    fluid = region & (share > 0.5)
    if float(fluid.sum()) * c.scene.grid.voxel_ml < 5:
        return False
    edit = c.edit(box)
    edit.blend(torch.where(region, (2 * share - 0.5).clamp(0, 1), 0.0), hu + 3 * c.noise(box, 18))
    ml = float(fluid.sum()) * c.scene.grid.voxel_ml
    return c.apply(edit, kind, ml=round(ml, 1), hu=round(hu, 1))


def sentinel_clot(c: Canvas, where: Point) -> bool:
    """Clotted blood beside the injury, brighter than the free blood elsewhere."""
    size = c.draw("haemoperitoneum.sentinel_mm")
    box = c.scene.grid.box(tuple(where), 1.6 * size)
    if empty(box):
        return False
    room = c.inner_fat[box] & (c.hu[box] < 0)  # what bleeds there already stays
    away = distance(c.local(box), where) - size + 0.2 * size * c.noise(box, 12)
    edit = c.edit(box)
    value = c.draw("haemoperitoneum.sentinel_hu") + 4 * c.noise(box, 8)
    edit.blend(torch.where(room, soft(away, 1.5), 0.0), value)
    return c.apply(edit, "sentinel_clot")


def extravasation(c: Canvas, where: Point, room: Tensor, host: Target | None) -> bool:
    """A blush as bright as the aorta, a jet or a pool, within a haematoma of mixed attenuation.

    `room`: bool (X, Y, Z), where blood may go. `host`: target of the injury it lies in, whose mask
    then covers the haematoma.
    """
    if c.phase is Phase.PLAIN:
        return False
    diameter = c.draw("extravasation.diameter_mm")
    edge = 0.8
    if c.phase is Phase.DELAYED:  # it grows and spreads
        diameter *= c.draw("extravasation.growth")
        edge = 2.5
    margin = 0.5 * (c.draw("extravasation.haematoma_share") - 1) * diameter
    if host is None:  # it is what the patient bled into, and large
        margin = max(margin, c.dice.uniform(8, 22))
    box = c.scene.grid.box(tuple(where), diameter + 1.3 * margin + 4)
    if empty(box):
        return False
    free = room[box] & ~member(c.scene.labels[box], SOLID_WALLS)
    edit = c.edit(box)
    blush = _jet(c, box, where, diameter)
    around = blush - margin * (1 + 0.3 * c.noise(box, 14))
    clot = c.blood(edit, torch.zeros_like(free), clotted=True)
    edit.blend(torch.where(free, soft(around, 1.8), 0.0), clot, lesion=False)
    bruised = edit.after.clone()
    span = c.ranges["extravasation.hu"]
    level = c.table[Tissue.AORTA] * c.draw(f"extravasation.level_share.{c.phase.value}")
    level = min(max(level, span.low), span.high)
    fade = (1 - 0.12 * (1 + blush / (0.5 * diameter)).clamp(0, 1)) * (1 + 0.05 * c.noise(box, 5))
    edit.blend(torch.where(free, soft(blush, edge), 0.0), level * fade)
    brighter = edit.after - bruised
    edit.lesion &= brighter > 0.35 * (level - float(clot.mean()))
    if float((edit.after - edit.before)[edit.lesion].mean() if bool(edit.lesion.any()) else 0) < 15:
        return False  # in a place as bright as itself
    near = free & grown(edit.lesion, c.scene.grid.spacing, 8)
    done = c.finish(
        edit, near, Target.EXTRAVASATION, "blush", 1, least_ml="visible.blush_ml",
        organ=host.value if host else "elsewhere",
    )  # fmt: skip
    if done and host is not None:
        blood = (bruised - edit.before).abs() >= c.ranges["visible.edge_hu"].low
        c.masks[host][box] |= blood & free
    return done


def _jet(c: Canvas, box: tuple[slice, slice, slice], where: Point, diameter: float) -> Tensor:
    """Signed distance (mm, negative inside) of a chain of drops of unequal size."""
    xyz = c.local(box)
    point, way = where.copy(), c.dice.direction()
    drops = c.dice.integer(2, 5)
    out = torch.full_like(xyz[0], 1e3)
    for k in range(drops):
        radius = diameter / 2 * c.dice.uniform(0.45, 0.85) * (1.0 if k == 0 else 0.85)
        out = torch.minimum(out, distance(xyz, point) - radius)
        way = way + 0.8 * c.dice.direction()
        way /= np.linalg.norm(way)
        point = point + way * diameter / drops * c.dice.uniform(0.5, 1.0)
    rough = 0.1 * diameter * c.noise(box, max(4.0, diameter / 3))
    return out + rough + 0.4 * c.noise(box, 4)
