"""Small parametric bodies for the tests of injuries and look-alikes; made once each."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from torch import Tensor

from triage.simulate.anatomy import parametric
from triage.simulate.canvas import Canvas
from triage.simulate.contrast import render
from triage.simulate.fields import Dice
from triage.simulate.scene import Person, Scene, draw_grid
from triage.simulate.tissues import Tissue
from triage.types import Phase

FAT_MM = 30.0  # subcutaneous
SPACING = (3.0, 3.0, 4.0)


@cache
def _body(number: int, phase: Phase) -> tuple[Scene, Tensor, dict[Tissue, float]]:
    dice = Dice((9, number))
    person = replace(Person.draw(dice), fat=FAT_MM)
    scene = parametric(draw_grid(dice, SPACING, person), dice, person)
    return scene, *render(scene, phase, dice)


def canvas(number: int = 1, phase: Phase = Phase.PORTAL_VENOUS, seed: int = 0) -> Canvas:
    """A fresh canvas of a body without any lesion."""
    scene, hu, table = _body(number, phase)
    return Canvas(scene, hu.clone(), table, phase, Dice((seed, number)))
