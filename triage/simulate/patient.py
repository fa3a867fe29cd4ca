"""One virtual patient, from a seed: anatomy, contrast, look-alikes, injuries, scanner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate import injuries as inj
from triage.simulate import lookalikes
from triage.simulate.anatomy import Person, Scene, draw_grid, parametric
from triage.simulate.background import Background, scene
from triage.simulate.contrast import random_voxels, render
from triage.simulate.fields import Dice, Grid, blur, member
from triage.simulate.injuries import Canvas
from triage.simulate.plan import Case, draw_case, draw_phase
from triage.simulate.scanner import Scanner, scan
from triage.simulate.tissues import ORGAN_TISSUES, Tissue
from triage.types import ORGAN_LABEL, Organ, Phase, Target

UNKNOWN_LABEL = 255  # `Patient.organs` where the background does not tell


@dataclass
class Patient:
    """A finished virtual patient.

    `hu`: float32 (X, Y, Z), HU, RAS+ on `grid`. `organs`: uint8 (X, Y, Z), values of `ORGAN_LABEL`.
    `masks[target]`: bool (X, Y, Z), lesions (targets without lesion are absent).
    `known`: organs that `organs` can tell apart.
    """

    grid: Grid
    hu: Tensor
    organs: Tensor
    masks: dict[Target, Tensor]
    phase: Phase
    grades: dict[Target, int]
    known: tuple[Organ, ...]
    truth: dict[str, Any] = field(default_factory=dict)


def organ_labels(s: Scene) -> tuple[Tensor, tuple[Organ, ...]]:
    """Localiser labels of a scene: uint8 (X, Y, Z), and the organs that its labels know."""
    out = torch.zeros(s.labels.shape, dtype=torch.uint8)
    known = []
    for organ, tissues in ORGAN_TISSUES.items():
        if s.known is not None and not set(tissues) & s.known:
            continue
        known.append(organ)
        out[member(s.labels, tissues)] = ORGAN_LABEL[organ]
    return out, tuple(known)


def _solid(c: Canvas, name: str, target: Target, grade: int) -> bool:
    """Injuries of one solid organ: low AAST I-III, high IV-V."""
    d = c.dice
    small = (name == "liver" and 1.25) or 1.0
    done = False
    if grade == 1:
        kind = d.uniform(0, 1)
        if kind < 0.6:
            done |= inj.laceration(
                c, name, target, d.uniform(12, 32) * small, branches=d.integer(0, 2)
            )
        elif kind < 0.8:
            done |= inj.haematoma(c, name, target, d.uniform(10, 32) * small)
        else:
            done |= inj.subcapsular(c, name, target, d.uniform(5, 12), d.uniform(25, 45))
        if done and d.chance(0.25):
            inj.laceration(c, name, target, d.uniform(10, 25), branches=1)
        return done
    for _ in range(d.integer(1, 3)):
        done |= inj.laceration(c, name, target, d.uniform(32, 75) * small, branches=d.integer(2, 5))
    if d.chance(0.5):
        done |= inj.devascularised(c, name, target, d.uniform(0.25, 0.6))
    if d.chance(0.5):
        done |= inj.haematoma(c, name, target, d.uniform(25, 55) * small)
    if d.chance(0.4):
        done |= inj.subcapsular(c, name, target, d.uniform(10, 22), d.uniform(40, 70))
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
        done = _solid(c, name, Target.KIDNEY, grade)
        if c.dice.chance(0.5 if grade == 1 else 0.85):
            low, high = (5, 14) if grade == 1 else (12, 32)
            done |= inj.perirenal(c, name, c.dice.uniform(low, high))
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
        done |= inj.bowel_wall(c, points[0], d.uniform(22, 48), d.uniform(5, 11))
    if kinds > 0.35:
        near = points[1] + d.rng.normal(0, 14, 3)
        done |= inj.mesenteric(c, near, d.uniform(18, 55))
    if d.chance(0.3) or not done:
        done |= inj.free_air(c, d.integer(2, 9))
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
        if len(points) and inj.extravasation(c, points[0], d.uniform(4, 20)):
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


def injure(c: Canvas, case: Case) -> dict[Target, int]:
    """Put the case's injuries into the patient; returns the grades that found room."""
    grades = dict.fromkeys(Target, 0)
    for target in (Target.LIVER, Target.SPLEEN):
        grade = case.grade(target)
        if grade and _solid(c, target.value, target, grade):
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
        if inj.free_fluid(c, min(amount, 1.0), c.dice.uniform(22, 50)) is not None:
            c.lesions.append({"target": None, "kind": "haemoperitoneum"})
    return grades


def simulate(
    seed: int | Sequence[int],
    *,
    spacing: tuple[float, float, float] = (1.5, 1.5, 3.0),
    backgrounds: Sequence[Background] = (),
    parametric_share: float = 0.5,
    case: Case | None = None,
    enriched: float | None = None,
    phase: Phase | None = None,
    variants: int = 1,
    scanned: bool = True,
) -> list[Patient]:
    """Virtual patients from one anatomy: `variants` draws of injuries, phase and scanner.

    The same seed and arguments give the same patients. HU, RAS+, spacing in mm. `scanned=False`
    leaves `hu` as it is before blur and noise; `truth["scanner"]` tells what to do to it.
    """
    dice = Dice(seed)
    if not backgrounds or dice.chance(parametric_share):
        person = Person.draw(dice)
        base = parametric(draw_grid(dice, spacing, person), dice, person)
    else:
        base = scene(backgrounds[dice.integer(0, len(backgrounds) - 1)], spacing, dice)
    organs, known = organ_labels(base)
    out = []
    for _ in range(variants):
        chosen = case or draw_case(dice, enriched=enriched)
        out.append(_one(base, organs, known, chosen, phase, dice, scanned))
    return out


def _one(
    base: Scene,
    organs: Tensor,
    known: tuple[Organ, ...],
    case: Case,
    phase: Phase | None,
    dice: Dice,
    scanned: bool,
) -> Patient:
    when = phase or _phase(base, case, dice)
    view = Scene(base.grid, base.labels.clone(), base.name, base.hu, base.known)
    ideal, table = render(view, when, dice)
    canvas = Canvas(view, ideal, table, when, dice)
    lookalikes.add_all(canvas)
    grades = injure(canvas, case)
    scanner = Scanner.draw(dice)
    if base.hu is not None:
        canvas.hu = blend(base.hu, canvas.hu, base.grid)
    hu = canvas.hu
    if scanned:
        hu = scan(hu, base.grid, scanner, dice, soften=base.hu is None)
    truth = {
        "phase": when.value,
        "anatomy": base.name,
        "scanner": vars(scanner),
        "grades": {t.value: g for t, g in grades.items()},
        "lesions": canvas.lesions,
    }
    return Patient(
        base.grid, hu.clamp(-1024, 3071), organs, canvas.masks, when, grades, known, truth
    )


def blend(real: Tensor, edited: Tensor, grid: Grid) -> Tensor:
    """Put edits into a real image as its scanner would have shown them.

    The border is softened, and the edited voxels keep the grain of the original: without it a
    network would learn to find smooth patches instead of injuries.
    """
    share = blur((edited != real).float(), grid.spacing, 0.9)
    grain = (real - blur(real, grid.spacing, 2.5)).clamp(-45, 45)
    return real + share * (edited + grain - real)


def _phase(base: Scene, case: Case, dice: Dice) -> Phase:
    """A drawn phase; a real background has the one it was scanned in."""
    if base.hu is None:
        return draw_phase(dice, case)
    aorta = base.hu[base.labels == int(Tissue.AORTA)]
    kidney = base.hu[member(base.labels, (Tissue.CORTEX_RIGHT, Tissue.CORTEX_LEFT))]
    probe = aorta if len(aorta) > 200 else kidney
    bright = float(probe.median()) if len(probe) else 100.0
    return Phase.PORTAL_VENOUS if bright > 80 else Phase.PLAIN


def kidney_side(patient: Patient) -> str | None:
    """Side of the kidney lesions: right, left, both, or None."""
    mask = patient.masks.get(Target.KIDNEY)
    if mask is None:
        return None
    spine: NDArray[np.float64] | None = None
    where = patient.organs == ORGAN_LABEL[Organ.SPINE]
    if bool(where.any()):
        spine = patient.grid.world(where.nonzero().float().mean(0).tolist())
    middle = 0.0 if spine is None else float(spine[0])
    x = patient.grid.axis(0)[:, None, None].expand(mask.shape)[mask]
    right, left = bool((x > middle).any()), bool((x < middle).any())
    return "both" if right and left else "right" if right else "left"
