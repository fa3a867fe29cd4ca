"""One virtual patient, from a seed: anatomy, contrast, look-alikes, injuries, scanner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
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
from triage.simulate.plan import PHASES, Case, draw_case, draw_phase
from triage.simulate.protocol import RESERVED, Protocol
from triage.simulate.ranges import Ranges
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
    out = torch.zeros(s.labels.shape, dtype=torch.uint8, device=s.labels.device)
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
    case: Case | Callable[[Dice], Case] | None = None,
    enriched: float | None = None,
    prevalence: Mapping[Target, float] | None = None,
    phase: Phase | None = None,
    phases: Mapping[Phase, float] | None = None,
    variants: int = 1,
    scanned: bool = True,
    ranges: Ranges | None = None,
    protocol: Protocol | None = None,
    device: str = "cpu",
) -> list[Patient]:
    """Virtual patients from one anatomy: `variants` draws of injuries, phase and scanner.

    The same seed and arguments give the same patients. HU, RAS+, spacing in mm. `scanned=False`
    leaves `hu` as it is before blur and noise; `truth["scanner"]` tells what to do to it.

    Which injuries: `case` (or what draws one), else as `plan.draw_case` draws them (`enriched`,
    `prevalence`).
    `phase`: that one; else drawn with the weights `phases` (default `plan.PHASES`). A background
    with an image has the phase it was scanned in. `ranges`: what lesions and look-alikes are drawn
    from. `protocol`: a frozen configuration that decides on phases, ranges, scanner and body; its
    seeds are its own, so that no patient made without it is ever one of its patients. `device`: of
    the tensors; another device type gives other patients of the same distribution.
    """
    settings = Settings.of(phase, phases, ranges, protocol, scanned)
    # what is made without a word of the device lies there as well
    with nullcontext() if device == "cpu" else torch.device(device):
        dice = Dice(seeds(seed, protocol), device)
        body: dict[str, Any] | None = None
        if not backgrounds or dice.chance(parametric_share):
            person = protocol.person(dice) if protocol else Person.draw(dice)
            body = vars(person)
            base = parametric(draw_grid(dice, spacing, person), dice, person)
        else:
            base = scene(backgrounds[dice.integer(0, len(backgrounds) - 1)], spacing, dice)
        organs, known = organ_labels(base)
        out = []
        for _ in range(variants):
            if case is None:
                chosen = draw_case(dice, enriched=enriched, prevalence=prevalence)
            else:
                chosen = case if isinstance(case, Case) else case(dice)
            patient = _one(base, organs, known, chosen, settings, dice)
            patient.truth["person"] = body
            out.append(patient)
        return out


def seeds(seed: int | Sequence[int], protocol: Protocol | None) -> list[int]:
    """Seed of a patient; a protocol's patients have a first number that nobody else may use.

    Raises ValueError where a seed belongs to the frozen protocol.
    """
    own = [seed] if isinstance(seed, int) else [int(s) for s in seed]
    if protocol is not None:
        return [RESERVED, *own]
    if own[0] == RESERVED:
        raise ValueError(
            f"Seed {RESERVED} is reserved for the test protocol: no patient for training may be "
            "made from it. Choose another one."
        )
    return own


@dataclass(frozen=True)
class Settings:
    """How a patient is made once anatomy and case are chosen."""

    phase: Phase | None
    phases: Mapping[Phase, float]
    ranges: Ranges
    protocol: Protocol | None
    scanned: bool

    @staticmethod
    def of(
        phase: Phase | None,
        phases: Mapping[Phase, float] | None,
        ranges: Ranges | None,
        protocol: Protocol | None,
        scanned: bool,
    ) -> Settings:
        if phase is Phase.UNKNOWN:
            raise ValueError("Expected a known phase: plain, arterial, portal_venous or delayed.")
        if protocol is not None:
            if phases is not None or ranges is not None:
                raise ValueError("A protocol brings its own phases and ranges: give one or other.")
            return Settings(phase, protocol.phases, protocol.ranges, protocol, scanned)
        return Settings(phase, phases or PHASES, ranges or Ranges(), None, scanned)

    def scanner(self, dice: Dice) -> Scanner:
        return self.protocol.scanner(dice) if self.protocol else Scanner.draw(dice)


def _one(
    base: Scene,
    organs: Tensor,
    known: tuple[Organ, ...],
    case: Case,
    settings: Settings,
    dice: Dice,
) -> Patient:
    drawn = draw_phase(dice, settings.phases)
    when = scanned_phase(base) or settings.phase or drawn
    view = replace(base, labels=base.labels.clone())
    ideal, table = render(view, when, dice)
    canvas = Canvas(view, ideal, table, when, dice, ranges=settings.ranges)
    lookalikes.add_all(canvas)
    grades = injure(canvas, case)
    scanner = settings.scanner(dice)
    if base.hu is not None:
        canvas.hu = blend(base.hu, canvas.hu, base.grid)
    hu = canvas.hu
    if settings.scanned:
        hu = scan(hu, base.grid, scanner, dice, soften=base.hu is None)
    truth = {
        "phase": when.value,
        "anatomy": base.name,
        "scanner": vars(scanner),
        "case": {t.value: case.grade(t) for t in Target},
        "grades": {t.value: g for t, g in grades.items()},
        "lesions": canvas.lesions,
        "protocol": settings.protocol.version if settings.protocol else None,
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


def scanned_phase(base: Scene) -> Phase | None:
    """The phase a real background was scanned in, from the aorta (limits: Bae KT, Radiology
    2010;256:32-61), else from the kidneys; None where the phase is drawn."""
    if base.hu is None:
        return None
    aorta = base.hu[base.labels == int(Tissue.AORTA)]
    kidney = base.hu[member(base.labels, (Tissue.CORTEX_RIGHT, Tissue.CORTEX_LEFT))]
    if len(aorta) <= 200:
        bright = float(kidney.median()) if len(kidney) else 100.0
        return Phase.PORTAL_VENOUS if bright > 80 else Phase.PLAIN
    bright = float(aorta.median())
    limits = ((80, Phase.PLAIN), (125, Phase.DELAYED), (225, Phase.PORTAL_VENOUS))
    return next((phase for limit, phase in limits if bright < limit), Phase.ARTERIAL)


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
