"""Injuries of solid organs, after the AAST organ injury scales.

Kozar RA et al., J Trauma 2018;85:1119-1122.

Each function changes a `Canvas`: HU of the ideal image, the lesion mask of its target, the truth;
False where it found no room or would not be seen. `name` is an organ of `canvas.ORGAN`, `grade` 1
(AAST I-III) or 2 (IV-V). All distances in mm, attenuation in HU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.canvas import GRADE, Canvas, Edit
from triage.simulate.contrast import random_voxels
from triage.simulate.fields import depth_mm
from triage.simulate.shapes import Box, component, distance, grown, offset, soft, surface_point
from triage.simulate.tissues import HU, Tissue
from triage.types import Phase, Target

Vector = NDArray[np.float64]


def family(name: str) -> str:
    """The organ as the keys of `Ranges` name it: liver, spleen or kidney."""
    return name.split("_", maxsplit=1)[0]


class Start(NamedTuple):
    """Where an injury enters an organ: a point of the capsule and the way inwards."""

    point: Vector
    inward: Vector
    box: Box
    organ: Tensor
    depth: Tensor


def enter(c: Canvas, name: str, reach: float) -> Start | None:
    """A random point of the capsule, and the organ within `reach` mm of it."""
    found = c.organ(name)
    if found is None:
        return None
    start = surface_point(c, found[0], found[2])
    if start is None:
        return None
    near = c.crop(name, start[0], reach)
    return None if near is None else Start(start[0], start[1], near[0], near[1], near[2])


def laceration(c: Canvas, name: str, target: Target, grade: int) -> bool:
    """A branching tear from the capsule inwards, filled with blood, in a bruised surrounding."""
    level = GRADE[grade]
    length = c.draw(f"laceration.depth_mm.{family(name)}.{level}")
    start = enter(c, name, 1.3 * length)
    if start is None:
        return False
    edit = c.edit(start.box)
    tear = _tear(c, start, length, level)
    edge = c.draw("laceration.edge_mm")
    blood = c.blood(edit, start.organ & (start.depth > 2))
    bruise(c, edit, start.organ, tear, blood)
    edit.blend(torch.where(start.organ, soft(tear, edge), 0.0), blood)
    edit.lesion &= start.organ
    if not c.finish(edit, start.organ, target, "laceration", grade, organ=name):
        return False
    _spill(c, start)
    return True


def _tear(c: Canvas, start: Start, length: float, level: str) -> Tensor:
    """Signed distance (mm, negative inside) of a crack with side branches."""
    xyz = c.local(start.box)
    heading = start.inward + 0.35 * c.dice.direction()
    heading /= np.linalg.norm(heading)
    across = np.cross(heading, c.dice.direction())
    across /= max(float(np.linalg.norm(across)), 1e-6)
    wave, rough, uneven = (c.noise(start.box, s) for s in (16, 5, 9))
    out = torch.full_like(xyz[0], 1e3)
    for branch in range(1 + c.count(f"laceration.branches.{level}")):
        reach, root, turn = length, start.point, 0.0
        if branch:
            reach *= c.dice.uniform(0.35, 0.7)
            root = start.point + heading * length * c.dice.uniform(0.1, 0.65)
            turn = c.dice.uniform(0.5, 1.4) * (1 if c.dice.chance(0.5) else -1)
        side = np.cross(across, heading)
        way = np.cos(turn) * heading + np.sin(turn) * side
        normal = np.cos(turn) * side - np.sin(turn) * heading
        d = offset(xyz, root)
        along = component(d, way)
        done = (along / reach).clamp(0, 1)
        half = 0.5 * c.draw(f"laceration.width_mm.{level}") * (0.75 if branch else 1.0)
        thick = half * (1.15 - 0.8 * done) * (1 + 0.35 * uneven) + 0.5 * rough
        wide = reach * c.dice.uniform(0.4, 0.75) * (1.05 - 0.5 * done) + 3 * rough
        off = (component(d, normal) + 0.05 * length * wave + 1.2 * rough).abs() - thick
        ends = torch.maximum(along - reach, -6.0 - along)
        crack = torch.maximum(torch.maximum(off, ends), component(d, across).abs() - wide)
        out = torch.minimum(out, crack)
    return out


def bruise(c: Canvas, edit: Edit, organ: Tensor, injury: Tensor, blood: Tensor) -> None:
    """Ill-defined loss of enhancement around an injury (`injury`: signed distance, mm)."""
    reach = c.draw("contusion.reach_mm")
    patchy = (0.55 + 0.45 * c.noise(edit.box, 10)).clamp(0, 1.3)
    share = c.draw("contusion.loss_share") * patchy * soft(injury - 0.6 * reach, reach)
    edit.blend(torch.where(organ, share, 0.0), blood)


def _spill(c: Canvas, start: Start) -> None:
    """Blood outside the capsule, where the tear opens; the haematoma beside the organ."""
    fat = c.inner_fat[start.box]
    away = distance(c.local(start.box), start.point)
    near = torch.sigmoid((14 + 4 * c.noise(start.box, 12) - away) / 3)
    layer = soft(-start.depth - c.dice.uniform(3, 9) * near, 1.2)
    edit = c.edit(start.box)
    edit.blend(torch.where(fat, layer * near, 0.0), c.blood(edit, fat))
    c.put(edit)


def haematoma(c: Canvas, name: str, target: Target, grade: int) -> bool:
    """An intraparenchymal clot: uneven, of irregular and ill-defined outline."""
    diameter = c.draw(f"haematoma.diameter_mm.{family(name)}.{GRADE[grade]}")
    found = c.organ(name)
    if found is None:
        return False
    box, organ, depth = found
    centre = _inside(c, box, organ, depth, min(diameter * 0.3, float(depth.max()) * 0.6))
    if centre is None:
        return False
    near = c.crop(name, centre, 0.95 * diameter)
    if near is None:
        return False
    box, organ, depth = near
    edit = c.edit(box)
    d = offset(c.local(box), centre)
    radii = [0.85 * diameter / 2 * c.dice.uniform(0.7, 1.25) for _ in range(3)]
    shape = torch.sqrt(sum(((v / r) ** 2 for v, r in zip(d, radii, strict=True)), torch.zeros(())))
    wavy = 0.26 * c.noise(box, max(7.0, diameter / 3)) + 0.12 * c.noise(box, max(4.0, diameter / 7))
    clot = (shape + wavy - 1) * diameter / 2
    host = organ & (depth > 1)
    blood = c.blood(edit, host)
    bruise(c, edit, organ, clot, blood)
    share = soft(clot, c.draw("haematoma.edge_mm")) * (0.93 + 0.07 * c.noise(box, 8)).clamp(0.75, 1)
    edit.blend(torch.where(organ, share, 0.0), blood)
    return c.finish(edit, organ, target, "haematoma", grade, organ=name)


def _inside(c: Canvas, box: Box, organ: Tensor, depth: Tensor, least: float) -> Vector | None:
    """A random point of an organ at least `least` mm under its capsule."""
    points = random_voxels(organ & (depth >= least), c.scene.grid, c.dice, 1)
    if len(points) == 0:
        return None
    corner = [s.start * p for s, p in zip(box, c.scene.grid.spacing, strict=True)]
    return np.asarray(points[0] + corner)


def subcapsular(c: Canvas, name: str, target: Target, grade: int) -> bool:
    """Blood under the capsule: a crescent or a lens that flattens the parenchyma."""
    level = GRADE[grade]
    thick = c.draw(f"subcapsular.thickness_mm.{level}")
    spread = c.draw(f"subcapsular.spread_mm.{family(name)}.{level}")
    start = enter(c, name, spread + 8)
    if start is None:
        return False
    box, organ, depth = start.box, start.organ, start.depth
    edit = c.edit(box)
    xyz = c.local(box)
    away = distance(xyz, start.point) + 2.5 * c.noise(box, 18)
    bulge = 0.25 * thick  # the capsule is lifted off into the fat around
    profile = (1 - (away / spread) ** 2).clamp_min(0)
    inner = depth - thick * profile
    if c.dice.chance(0.5):  # a tense haematoma: the parenchyma is flat under it
        flat = component(offset(xyz, start.point), start.inward) - thick
        inner = torch.maximum(torch.maximum(inner - 0.6 * thick, flat), away - spread)
    edge = torch.maximum(inner + 0.6 * c.noise(box, 8), away - spread)
    outer = -depth - bulge * profile
    room = organ | c.inner_fat[box]
    share = soft(torch.maximum(edge, outer), 0.8)
    blood = c.blood(edit, organ & (depth > 2), clotted=c.dice.chance(0.6))
    edit.blend(torch.where(room, share, 0.0), blood)
    return c.finish(edit, organ, target, "subcapsular_haematoma", grade, organ=name)


def devascularised(c: Canvas, name: str, target: Target, grade: int) -> bool:
    """A wedge without enhancement: its tip at the hilum, its base on the capsule."""
    found = c.organ(name)
    if c.phase is Phase.PLAIN or found is None:
        return False
    box, organ, depth = found
    edit = c.edit(box)
    d = offset(c.local(box), _hilum(c, box, organ))
    far = torch.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2).clamp_min(1e-3)
    heading = _outwards(c, box, organ)
    cosine = component(d, heading) / far + 0.05 * c.noise(box, 22)
    whole = name.startswith("kidney") and c.chance("devascularised.whole_p")
    share = 0.999 if whole else c.draw("devascularised.share")
    if name == "liver":  # of a lobe
        share *= 0.6
    limit = float(torch.quantile(cosine[organ][:: max(1, int(organ.sum()) // 50000)], 1 - share))
    wedge = (limit - cosine) * far.clamp(8, 60)  # mm beyond the cone's border, about
    plain = HU[Tissue.CORTEX_RIGHT if name.startswith("kidney") else Tissue[name.upper()]].plain
    rest = soft(wedge + 0.8 * c.noise(box, 7), 1.2)
    if c.chance("devascularised.rim_p"):  # capsular arteries keep a thin rim
        rest = rest * torch.sigmoid((depth - 2.0) * 2.0)
    value = plain + 8 + 3 * c.noise(box, 9)
    edit.blend(torch.where(organ, rest, 0.0), value)
    return c.finish(edit, organ & (depth > 1), target, "devascularised", grade, organ=name)


def _outwards(c: Canvas, box: Box, organ: Tensor) -> Vector:
    """From the hilum to a random point of the capsule: unit vector."""
    ends = random_voxels(organ, c.scene.grid, c.dice, 1)[0]
    ends = ends + [s.start * p for s, p in zip(box, c.scene.grid.spacing, strict=True)]
    way = ends - _hilum(c, box, organ)
    return np.asarray(way / max(float(np.linalg.norm(way)), 1e-6))


def _hilum(c: Canvas, box: Box, organ: Tensor) -> Vector:
    """Where the vessels enter, about: the middle of the part next to the spine."""
    where = organ.nonzero().float()
    x = c.scene.grid.axis(0)[box[0]][where[:, 0].long()]
    near = (x - c.middle).abs()
    inner = where[near <= torch.quantile(near[:: max(1, len(near) // 50000)], 0.12)]
    corner = np.asarray([s.start for s in box])
    return c.scene.grid.world(inner.mean(0).cpu().numpy() + corner)


def perirenal(c: Canvas, name: str, grade: int) -> bool:
    """Blood around a kidney, held by Gerota's fascia: fat of its own side, inside the wall."""
    found = c.organ(name)
    if found is None:
        return False
    thick = c.draw(f"perirenal.thickness_mm.{GRADE[grade]}")
    pads = [
        round(m * thick / s) + 4 for m, s in zip((1.4, 1.4, 2.2), c.scene.grid.spacing, strict=True)
    ]
    x, y, z = (
        slice(max(s.start - p, 0), min(s.stop + p, n))
        for s, p, n in zip(found[0], pads, c.scene.grid.shape, strict=True)
    )
    box = (x, y, z)
    kidney = torch.zeros_like(c.inner_fat[box])
    low = [a.start - b.start for a, b in zip(found[0], box, strict=True)]
    inside = tuple(slice(k, k + n) for k, n in zip(low, found[1].shape, strict=True))
    kidney[inside] = found[1]
    away = gerota(c, box, kidney)
    fat = c.inner_fat[box]
    if c.scene.hu is not None:  # voxels that kidney and fat share
        fat = fat | (~kidney & (away < 3) & grown(fat, c.scene.grid.spacing, 2.0))
    towards = component(list(c.local(box)), c.dice.direction())
    towards = (towards - towards[kidney].mean()) / towards[kidney].std().clamp_min(1e-6)
    limit = thick * (0.55 + 0.3 * c.noise(box, 16) + 0.3 * towards.clamp(-1.5, 1.5)).clamp(-0.3, 1)
    edit = c.edit(box)
    blood = c.blood(edit, fat, clotted=c.dice.chance(0.5))
    rise = c.draw("stranding.hu")
    c.strand(edit, fat, soft(away - 1.5 * thick, 4.0), rise)
    edit.blend(torch.where(fat, soft(away - limit, 1.0), 0.0), blood)
    return c.finish(edit, fat, Target.KIDNEY, "perirenal_haematoma", grade, organ=name)


def gerota(c: Canvas, box: Box, kidney: Tensor) -> Tensor:
    """Distance from a kidney (mm), very far outside its perirenal space.

    The space reaches farther down than up, not over the midline, and little in front.
    """
    where = kidney.nonzero()
    x, y, z = c.local(box)
    side = x - c.middle
    if float(side[kidney].mean()) < 0:
        side = -side
    low = float(z[0, 0, int(where[:, 2].min())])
    front = float(torch.quantile(y[kidney][:: max(1, len(where) // 20000)], 0.98))
    away = -depth_mm(kidney, c.scene.grid.spacing, 2)
    away = away - 0.5 * (low - z).clamp_min(0).clamp_max(60)
    outside = torch.maximum(8 - side, y - front - 8 + 4 * c.noise(box, 30))
    return torch.where(outside > 0, away + 8 * outside, away)
