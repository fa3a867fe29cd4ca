"""The injuries of a case: which ones an organ gets, how large they are and where they lie.

Grades: low (1) is AAST I-III, high (2) IV-V (Kozar RA et al., J Trauma 2018;85:1119-1122).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate import abdomen, fluid, solid
from triage.simulate.canvas import GRADE, ORGAN, Canvas
from triage.simulate.contrast import random_voxels
from triage.simulate.fields import coarse_blur, member
from triage.simulate.plan import Case
from triage.simulate.shapes import Box, grown
from triage.simulate.spaces import peritoneal_fat
from triage.simulate.tissues import Tissue
from triage.types import Phase, Target

Kind = Callable[[Canvas, str, Target, int], bool]


def injure(c: Canvas, case: Case) -> dict[Target, int]:
    """Put the case's injuries into the patient; returns the grades that found room."""
    grades = dict.fromkeys(Target, 0)
    for target in (Target.LIVER, Target.SPLEEN):
        grade = case.grade(target)
        if grade and _solid_organ(c, target.value, target, grade):
            grades[target] = grade
    if case.kidney and _kidneys(c, case.kidney):
        grades[Target.KIDNEY] = case.kidney
    if case.bowel and _bowel(c):
        grades[Target.BOWEL] = 1
    if case.extravasation and _extravasation(c):
        grades[Target.EXTRAVASATION] = 1
    _haemoperitoneum(c, grades)
    c.settle()
    return grades


def _until(c: Canvas, attempt: Callable[[], bool]) -> bool:
    """Try again elsewhere, a bounded number of times."""
    return any(attempt() for _ in range(int(c.ranges["visible.tries"].high)))


def _put(c: Canvas, kind: Kind, name: str, target: Target, grade: int) -> bool:
    return _until(c, lambda: kind(c, name, target, grade))


def _solid_organ(c: Canvas, name: str, target: Target, grade: int) -> bool:
    """Injuries of one solid organ: low AAST I-III, high IV-V."""
    return _low(c, name, target) if grade == 1 else _high(c, name, target)


def _low(c: Canvas, name: str, target: Target) -> bool:
    lot = c.dice.uniform(0, 1)
    torn = c.ranges["first.laceration_p.low"].low
    bled = torn + c.ranges["first.haematoma_p.low"].low
    kinds = [solid.laceration, solid.haematoma, solid.subcapsular]
    first = kinds[0 if lot < torn else 1 if lot < bled else 2]
    if not any(_put(c, k, name, target, 1) for k in [first, *kinds]):
        return False
    if first is solid.laceration:
        for _ in range(c.count("laceration.count.low") - 1):
            solid.laceration(c, name, target, 1)
    if c.chance("second.p.low"):
        solid.laceration(c, name, target, 1)
    return True


def _high(c: Canvas, name: str, target: Target) -> bool:
    """Several deep tears and what goes with them; a tear or a wedge must be among them."""
    done = False
    for _ in range(c.count("laceration.count.high")):
        done |= _put(c, solid.laceration, name, target, 2)
    if c.chance("with.devascularised_p.high") or not done:
        done |= _put(c, solid.devascularised, name, target, 2)
    for kind, key in ((solid.haematoma, "haematoma"), (solid.subcapsular, "subcapsular")):
        if c.chance(f"with.{key}_p.high") or not done:
            done |= _put(c, kind, name, target, 2)
    return done


def _kidneys(c: Canvas, grade: int) -> bool:
    sides = ["right", "left"]
    c.dice.rng.shuffle(sides)
    count = 2 if c.chance("kidney.both_p") else 1
    hurt = 0
    for side in sides:
        if hurt < count:
            hurt += int(_kidney(c, f"kidney_{side}", grade))
    return hurt > 0


def _kidney(c: Canvas, name: str, grade: int) -> bool:
    """Parenchyma first: perirenal blood alone is no injury of grade IV or V."""
    if not _solid_organ(c, name, Target.KIDNEY, grade):
        return False
    if c.chance(f"perirenal.p.{GRADE[grade]}"):
        _until(c, lambda: solid.perirenal(c, name, grade))
    return True


def _bowel(c: Canvas) -> bool:
    """Wall, mesentery, fluid between the loops, air; at least one of the first two."""
    done = _until(c, lambda: _bowel_site(c))
    if done and c.chance("bowel.air_p"):
        _until(c, lambda: abdomen.free_air(c))
    return done


def _bowel_site(c: Canvas) -> bool:
    where = _loop_point(c)
    if where is None:
        return False
    thick, bled = c.chance("bowel.wall_p"), c.chance("bowel.mesentery_p")
    done = False
    if thick or not bled:
        done |= abdomen.bowel_wall(c, where)
    if bled or not done:
        done |= abdomen.mesenteric(c, where + c.dice.rng.normal(0, 10, 3))
    if not done:
        return False
    if c.chance("bowel.fluid_p"):
        abdomen.interloop(c, where)
    abdomen.bubbles(c, where)
    return True


def _loop_point(c: Canvas) -> NDArray[np.float64] | None:
    """A point on the border of bowel and mesentery; without labels, in the middle of the fat."""
    wall = member(c.scene.labels, (Tissue.BOWEL_WALL, Tissue.COLON_WALL))
    room = wall & grown(c.inner_fat, c.scene.grid.spacing, 4)
    if not bool(room.any()):
        room = peritoneal_fat(c.scene, c.inner_fat) if bool(wall.any()) else _central_fat(c)
    points = random_voxels(room, c.scene.grid, c.dice, 1)
    return points[0] if len(points) else None


def _central_fat(c: Canvas) -> Tensor:
    """Fat of the mesentery of a background whose bowel nobody labelled: in the middle, in front."""
    kidneys = coarse_blur(
        member(c.scene.labels, ORGAN["kidney_right"] + ORGAN["kidney_left"]), c.scene.grid, 9.0
    )
    where = c.inner_fat.nonzero()
    if len(where) == 0:
        return c.inner_fat
    x = c.scene.grid.axis(0)[:, None, None]
    y = c.scene.grid.axis(1)[None, :, None]
    behind = torch.quantile(c.scene.grid.axis(1)[where[:, 1]][:: len(where) // 50000 + 1], 0.45)
    liver = c.organ("liver")
    top = math.inf if liver is None else _centre(c, liver)[2]  # below heart and lungs
    below = c.scene.grid.axis(2)[None, None, :] < top
    return c.inner_fat & below & (kidneys < 0.02) & ((x - c.middle).abs() < 80) & (y > behind)


def _extravasation(c: Canvas) -> bool:
    """In an injured organ if there is one, else in muscle or in the fat behind the bowel."""
    if c.phase is Phase.PLAIN:
        return False
    hosts = [t for t in c.masks if t is not Target.EXTRAVASATION]
    elsewhere, *places = _soft_parts(c)
    inner = _inner(c)
    places = [p & inner for p in places]

    def bleed() -> bool:
        if hosts and c.chance("extravasation.in_injury_p"):
            host = hosts[c.dice.integer(0, len(hosts) - 1)]
            points = random_voxels(c.masks[host], c.scene.grid, c.dice, 1)
            room = c.masks[host] | c.inner_fat | _organ_of(c, host)
            return len(points) > 0 and fluid.extravasation(c, points[0], room, host)
        place = places[0 if c.dice.chance(0.65) else 1]
        points = random_voxels(place, c.scene.grid, c.dice, 1)
        return len(points) > 0 and fluid.extravasation(c, points[0], elsewhere, None)

    return _until(c, bleed)


def _organ_of(c: Canvas, target: Target) -> Tensor:
    names = [n for n in ORGAN if n.startswith(target.value)]
    return member(c.scene.labels, [t for n in names for t in ORGAN[n]] or [Tissue.BOWEL_WALL])


def _soft_parts(c: Canvas) -> tuple[Tensor, Tensor, Tensor]:
    """Soft parts, and of them fat and muscle away from the organs: where a vessel may bleed."""
    labels = c.scene.labels
    organs = [t for ts in ORGAN.values() for t in ts] + [Tissue.BOWEL_WALL, Tissue.COLON_WALL]
    near = coarse_blur(member(labels, organs), c.scene.grid, 7.0)
    muscle = labels == int(Tissue.MUSCLE)
    if c.scene.known is not None:  # what nobody labelled counts as muscle: only the back is sure
        y = c.scene.grid.axis(1)[None, :, None]
        kidney = c.organ("kidney_right") or c.organ("kidney_left") or c.organ("spleen")
        behind = float(y.mean()) - 40 if kidney is None else _centre(c, kidney)[1]
        muscle &= y < behind - 10
    free = near < 0.05
    thick = coarse_blur(muscle, c.scene.grid, 7.0) > 0.75  # psoas, back, buttock; not the flank
    wall = coarse_blur(
        member(labels, (Tissue.MUSCLE, Tissue.VERTEBRA, Tissue.BONE)), c.scene.grid, 9.0
    )
    wide = coarse_blur(c.inner_fat, c.scene.grid, 7.0) > 0.5
    y = c.scene.grid.axis(1)
    back = y < y[c.inner_fat.any(2).any(0)].mean()
    deep = wide & (wall > 0.12) & back[None, :, None]  # beside psoas, spine, pelvis; not in front
    return c.inner_fat | muscle, c.inner_fat & free & deep, muscle & thick & free


def _centre(c: Canvas, found: tuple[Box, Tensor, Tensor]) -> tuple[float, ...]:
    box, organ, _ = found
    return tuple(float(v[organ].mean()) for v in c.local(box))


def _inner(c: Canvas) -> Tensor:
    """The middle of the trunk, away from skin and lungs."""
    out = torch.zeros_like(c.hu, dtype=torch.bool)
    body = (c.hu[::4, ::4, ::2] > -300).nonzero() * torch.tensor([4, 4, 2], device=c.hu.device)
    low, high = body.amin(0), body.amax(0)
    cut = ((high - low).float() * torch.tensor([0.15, 0.15, 0.05], device=c.hu.device)).long()
    low, high = low + cut, high - cut
    out[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    return out


def _haemoperitoneum(c: Canvas, grades: dict[Target, int]) -> None:
    """Free blood, and a clot beside an injury; kidneys bleed behind the peritoneum."""
    inside = [t for t, g in grades.items() if g and t is not Target.KIDNEY and t in c.masks]
    worst = max((grades[t] for t in inside), default=0)
    if not worst or not c.chance(f"haemoperitoneum.p.{GRADE[worst]}"):
        return
    amount = c.draw(f"haemoperitoneum.amount.{GRADE[worst]}")
    fluid.free_fluid(c, min(amount, 1.0), c.draw("haemoperitoneum.hu"), "haemoperitoneum")
    if c.chance("haemoperitoneum.sentinel_p"):
        mask = c.masks[inside[c.dice.integer(0, len(inside) - 1)]]
        points = random_voxels(mask, c.scene.grid, c.dice, 1)
        fluid.sentinel_clot(c, points[0])
