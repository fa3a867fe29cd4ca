"""One virtual patient, from a seed: anatomy, contrast, look-alikes, injuries, scanner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate import lookalikes
from triage.simulate.anatomy import parametric
from triage.simulate.background import Background, scene
from triage.simulate.canvas import Canvas
from triage.simulate.contrast import render
from triage.simulate.fields import Dice, Grid, blur, member
from triage.simulate.injuries import injure
from triage.simulate.plan import Case, draw_case, draw_phase
from triage.simulate.scanner import Scanner, scan
from triage.simulate.scene import Person, Scene, draw_grid
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
