"""The injuries of a case: which ones an organ gets, how large they are and where they lie.

Grades: low (1) is AAST I-III, high (2) IV-V (Kozar RA et al., J Trauma 2018;85:1119-1122).
"""

from __future__ import annotations

import torch
from torch import Tensor

from triage.simulate import abdomen, solid
from triage.simulate.canvas import Canvas
from triage.simulate.contrast import random_voxels
from triage.simulate.fields import member
from triage.simulate.plan import Case
from triage.simulate.tissues import Tissue
from triage.types import Target


def injure(c: Canvas, case: Case) -> dict[Target, int]:
    """Put the case's injuries into the patient; returns the grades that found room."""
    grades = dict.fromkeys(Target, 0)
    for target in (Target.LIVER, Target.SPLEEN):
        grade = case.grade(target)
        if grade and _solid_organ(c, target.value, target, grade):
            grades[target] = grade
    if case.kidney and _kidney(c, case.kidney):
        grades[Target.KIDNEY] = case.kidney
    if case.bowel and _bowel(c):
        grades[Target.BOWEL] = 1
    if case.extravasation and _extravasation(c):
        grades[Target.EXTRAVASATION] = 1
    worst = max(grades.values())
    if worst and c.dice.chance(0.25 + 0.25 * worst):
        amount = c.dice.uniform(0.05, 0.5) * worst
        if abdomen.free_fluid(c, min(amount, 1.0), c.dice.uniform(22, 50)) is not None:
            c.lesions.append({"target": None, "kind": "haemoperitoneum"})
    return grades


def _solid_organ(c: Canvas, name: str, target: Target, grade: int) -> bool:
    """Injuries of one solid organ: low AAST I-III, high IV-V."""
    d = c.dice
    small = (name == "liver" and 1.25) or 1.0
    done = False
    if grade == 1:
        kind = d.uniform(0, 1)
        if kind < 0.6:
            done |= solid.laceration(
                c, name, target, d.uniform(12, 32) * small, branches=d.integer(0, 2)
            )
        elif kind < 0.8:
            done |= solid.haematoma(c, name, target, d.uniform(10, 32) * small)
        else:
            done |= solid.subcapsular(c, name, target, d.uniform(5, 12), d.uniform(25, 45))
        if done and d.chance(0.25):
            solid.laceration(c, name, target, d.uniform(10, 25), branches=1)
        return done
    for _ in range(d.integer(1, 3)):
        done |= solid.laceration(
            c, name, target, d.uniform(32, 75) * small, branches=d.integer(2, 5)
        )
    if d.chance(0.5):
        done |= solid.devascularised(c, name, target, d.uniform(0.25, 0.6))
    if d.chance(0.5):
        done |= solid.haematoma(c, name, target, d.uniform(25, 55) * small)
    if d.chance(0.4):
        done |= solid.subcapsular(c, name, target, d.uniform(10, 22), d.uniform(40, 70))
    return done


def _kidney(c: Canvas, grade: int) -> bool:
    sides = ["right", "left"]
    c.dice.rng.shuffle(sides)
    count = 2 if c.dice.chance(0.12) else 1
    hurt = False
    for side in sides:
        if count == 0:
            break
        name = f"kidney_{side}"
        done = _solid_organ(c, name, Target.KIDNEY, grade)
        if c.dice.chance(0.5 if grade == 1 else 0.85):
            low, high = (5, 14) if grade == 1 else (12, 32)
            done |= solid.perirenal(c, name, c.dice.uniform(low, high))
        count -= int(done)
        hurt |= done
    return hurt


def _bowel(c: Canvas) -> bool:
    d = c.dice
    wall = member(c.scene.labels, (Tissue.BOWEL_WALL, Tissue.COLON_WALL))
    points = random_voxels(wall, c.scene.grid, d, 3)
    if len(points) == 0:
        return False
    done = False
    kinds = d.uniform(0, 1)
    if kinds < 0.65:
        done |= abdomen.bowel_wall(c, points[0], d.uniform(22, 48), d.uniform(5, 11))
    if kinds > 0.35:
        near = points[1] + d.rng.normal(0, 14, 3)
        done |= abdomen.mesenteric(c, near, d.uniform(18, 55))
    if d.chance(0.3) or not done:
        done |= abdomen.free_air(c, d.integer(2, 9))
    return done


def _extravasation(c: Canvas) -> bool:
    """In an injured organ if there is one, else in the mesentery, behind it, or in a muscle."""
    d = c.dice
    for _ in range(6):
        sites = [m for t, m in c.masks.items() if t is not Target.EXTRAVASATION]
        if sites and d.chance(0.75):
            mask = sites[d.integer(0, len(sites) - 1)]
        else:
            pick = ((Tissue.FAT,), (Tissue.MUSCLE,), (Tissue.BOWEL_WALL,))[d.integer(0, 2)]
            mask = member(c.scene.labels, pick)
            mask = mask & _inner(c)
        points = random_voxels(mask, c.scene.grid, d, 1)
        if len(points) and abdomen.extravasation(c, points[0], d.uniform(4, 20)):
            return True
    return False


def _inner(c: Canvas) -> Tensor:
    """The middle of the trunk, away from skin and lungs."""
    out = torch.zeros(c.hu.shape, dtype=torch.bool)
    body = (c.hu > -300).nonzero()
    low, high = body.amin(0), body.amax(0)
    cut = ((high - low).float() * torch.tensor([0.2, 0.22, 0.05])).long()
    low, high = low + cut, high - cut
    out[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    return out
