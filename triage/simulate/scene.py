"""The scene: a patient's tissues on a grid, before contrast, injuries and scanner."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from triage.simulate.fields import Dice, Grid, coarse_blur, smooth_noise
from triage.simulate.tissues import Tissue


@dataclass
class Scene:
    """A patient before contrast, injuries and scanner.

    `labels`: uint8 (X, Y, Z) of `Tissue`. `hu`: real background CT (X, Y, Z) in HU, or None.
    `known`: tissues that the labels tell apart (None: all); a background with four labelled organs
    knows only those.
    """

    grid: Grid
    labels: Tensor
    name: str
    hu: Tensor | None = None
    known: frozenset[Tissue] | None = None
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Person:
    """Measures of a parametric person, mm."""

    half_width: float  # of the trunk inside the subcutaneous fat
    half_depth: float
    fat: float  # subcutaneous
    stretch: float  # cranio-caudal scale
    muscle: float  # abdominal wall

    @staticmethod
    def draw(dice: Dice) -> Person:
        width = dice.normal(148, 12)
        return Person(
            half_width=width,
            half_depth=width * dice.uniform(0.64, 0.78),
            fat=float(np.clip(dice.rng.gamma(3.0, 7.0), 5, 55)),
            stretch=dice.normal(1.0, 0.05),
            muscle=dice.uniform(8, 15),
        )


def draw_grid(dice: Dice, spacing: tuple[float, float, float], person: Person) -> Grid:
    """A scan range for a parametric person, diaphragm to pelvis or less, and a field of view."""
    top = dice.uniform(195, 265)
    bottom = dice.uniform(-225, -160) if dice.chance(0.85) else dice.uniform(-120, -30)
    width = 2 * (person.half_width * 1.06 + person.fat + 14)
    depth = 2 * (person.half_depth * 1.06 + person.fat * 1.35 + 14)
    shape = (
        round(width / spacing[0]),
        round(depth / spacing[1]),
        max(8, round((top - bottom) / spacing[2])),
    )
    origin = (-(shape[0] - 1) / 2 * spacing[0], -(shape[1] - 1) / 2 * spacing[1], bottom)
    return Grid(shape, spacing, origin)


def fill_bowel(labels: Tensor, grid: Grid, dice: Dice) -> None:
    """Gas rises to the front of each loop; stool and fluid stay behind."""
    content = labels == int(Tissue.COLON_CONTENT)
    if not bool(content.any()):
        return
    amount = smooth_noise(dice, grid.shape, grid.spacing, 60)
    before = coarse_blur(content, grid, 14.0)
    rear = torch.roll(before, shifts=round(12 / grid.spacing[1]), dims=1)
    gas = (rear - before) > 0.02 + 0.12 * amount - dice.uniform(-0.05, 0.1)
    labels[content & gas] = int(Tissue.GAS)
    bowel = labels == int(Tissue.BOWEL_CONTENT)
    bubbles = smooth_noise(dice, grid.shape, grid.spacing, 14)
    labels[bowel & (bubbles > dice.uniform(1.6, 2.6))] = int(Tissue.GAS)
