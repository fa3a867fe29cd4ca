"""The scene: a patient's tissues on a grid, before contrast, injuries and scanner."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from triage.simulate.fields import Dice, Grid, coarse_blur, empty, smooth_noise, sub_grid
from triage.simulate.tissues import Tissue


@dataclass
class Scene:
    """A patient before contrast, injuries and scanner.

    `labels`: uint8 (X, Y, Z) of `Tissue`. `hu`: real background CT (X, Y, Z) in HU, or None.
    `known`: tissues that the labels tell apart (None: all); a background with four labelled organs
    knows only those. `detail`: (X, Y, Z) in HU, added to a rendered scene: structures thinner than
    a voxel.
    """

    grid: Grid
    labels: Tensor
    name: str
    hu: Tensor | None = None
    known: frozenset[Tissue] | None = None
    notes: dict[str, float] = field(default_factory=dict)
    detail: Tensor | None = None


@dataclass(frozen=True)
class Person:
    """Measures of a parametric person, mm; shares are relative to the usual."""

    half_width: float  # of the trunk inside the subcutaneous fat
    half_depth: float
    fat: float  # subcutaneous
    stretch: float  # cranio-caudal scale
    muscle: float  # abdominal wall
    female: bool = False
    belly: float = 0.3  # share of the fat that lies in front
    hips: float = 1.0  # width of the hips
    visceral: float = 0.5  # fat between the bowel loops, 0 to 1
    arms: str = "up"  # up, down, one, across

    @staticmethod
    def draw(dice: Dice) -> Person:
        female = dice.chance(0.42)
        mass = float(np.clip(dice.normal(0, 1), -2.2, 2.5))
        width = dice.normal(140 if female else 147, 7) + 8 * mass
        fat = np.exp(dice.normal(2.95 if female else 2.6, 0.35) + 0.42 * mass)
        arms = dice.rng.choice(["up", "down", "one", "across"], p=[0.77, 0.15, 0.05, 0.03])
        return Person(
            half_width=width,
            half_depth=width * (dice.uniform(0.66, 0.74) + 0.03 * mass),
            fat=float(np.clip(fat, 4, 65)),
            stretch=dice.normal(0.97 if female else 1.02, 0.045),
            muscle=dice.uniform(7, 12) if female else dice.uniform(9, 16),
            female=female,
            belly=dice.uniform(0, 0.8),
            hips=dice.normal(1.06 if female else 1.0, 0.03),
            visceral=float(np.clip(0.45 + 0.25 * mass + dice.normal(0, 0.15), 0, 1)),
            arms=str(arms),
        )


def draw_grid(dice: Dice, spacing: tuple[float, float, float], person: Person) -> Grid:
    """A scan range for a parametric person and a field of view around him.

    Most scans go from above the diaphragm to below the pubis; a few are cut, as in life.
    """
    top = dice.uniform(205, 275) * person.stretch
    low = dice.uniform(-245, -205) if dice.chance(0.9) else dice.uniform(-170, -40)
    bottom = low * person.stretch
    hips = 1.1 * person.hips if low < -100 else 1.0
    width = 2 * (person.half_width * hips * 1.04 + 1.25 * person.fat + 10)
    if person.arms in ("down", "one"):
        width += 2 * dice.uniform(40, 105)  # more or less of the arms in the field of view
    front = person.half_depth * 1.02 + person.fat * (1.1 + 0.5 * person.belly) + 10
    front += 75 if person.arms == "across" else 0
    back = person.half_depth * 1.14 + person.fat * 1.3 + (dice.uniform(14, 45))
    shape = (
        round(width / spacing[0]),
        round((front + back) / spacing[1]),
        max(8, round((top - bottom) / spacing[2])),
    )
    origin = (-(shape[0] - 1) / 2 * spacing[0], -back, bottom)
    return Grid(shape, spacing, origin, str(dice.device))


def fill_bowel(labels: Tensor, grid: Grid, dice: Dice) -> None:
    """Gas rises to the front of each loop; stool and fluid stay behind."""
    content = labels == int(Tissue.COLON_CONTENT)
    if not bool(content.any()):
        return
    box = sub_box(content)
    if box is None:
        return
    part, region, content = sub_grid(grid, box), labels[box], content[box]
    amount = smooth_noise(dice, part.shape, part.spacing, 60)
    before = coarse_blur(content, part, 14.0)
    rear = torch.roll(before, shifts=round(12 / grid.spacing[1]), dims=1)
    gas = (rear - before) > 0.05 + 0.16 * amount - dice.uniform(-0.05, 0.1)
    bubbles = smooth_noise(dice, part.shape, part.spacing, 5)
    stool = smooth_noise(dice, part.shape, part.spacing, 90) > dice.uniform(-1.5, 0.5)
    region.masked_fill_(content & (gas | (stool & (bubbles > 1.35))), int(Tissue.GAS))
    loops = smooth_noise(dice, part.shape, part.spacing, 14)
    bowel = region == int(Tissue.BOWEL_CONTENT)
    region.masked_fill_(bowel & (loops > dice.uniform(1.8, 3.0)), int(Tissue.GAS))


def sub_box(mask: Tensor, margin: int = 2) -> tuple[slice, slice, slice] | None:
    """Bounding box of a mask with a margin in voxels, or None if it is empty."""
    box = []
    for d in range(3):
        other = [i for i in range(3) if i != d]
        line = mask.any(other[1]).any(other[0])
        index = line.nonzero().flatten()
        if len(index) == 0:
            return None
        low = max(int(index[0]) - margin, 0)
        box.append(slice(low, min(int(index[-1]) + margin + 1, mask.shape[d])))
    found = (box[0], box[1], box[2])
    return None if empty(found) else found
