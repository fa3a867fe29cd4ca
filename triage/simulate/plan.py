"""The case plan: which injuries a patient has, and how bad they are.

`JOINT` counts combinations (bowel, extravasation, kidney, liver, spleen; 0 none, 1 low grade or
present, 2 high grade) in the published labels of the RSNA 2023 Abdominal Trauma Detection
challenge (3,147 patients; combinations seen once are left out).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from triage.simulate.fields import Dice
from triage.types import Phase, Target

JOINT: dict[tuple[int, int, int, int, int], int] = {
    (0, 0, 0, 0, 0): 2292,
    (0, 0, 0, 1, 0): 178,
    (0, 0, 0, 0, 1): 146,
    (0, 1, 0, 0, 0): 97,
    (0, 0, 0, 0, 2): 81,
    (0, 0, 1, 0, 0): 64,
    (0, 1, 0, 0, 2): 31,
    (0, 0, 0, 2, 0): 31,
    (1, 0, 0, 0, 0): 29,
    (0, 0, 2, 0, 0): 18,
    (0, 0, 0, 1, 1): 11,
    (1, 1, 0, 0, 0): 11,
    (0, 0, 2, 1, 0): 11,
    (0, 0, 1, 1, 0): 11,
    (0, 0, 1, 0, 2): 8,
    (0, 1, 0, 1, 0): 8,
    (0, 1, 0, 2, 0): 8,
    (0, 0, 0, 1, 2): 7,
    (0, 0, 2, 0, 2): 7,
    (0, 1, 2, 0, 0): 6,
    (0, 0, 1, 0, 1): 6,
    (0, 0, 0, 2, 1): 6,
    (0, 0, 1, 2, 0): 5,
    (1, 0, 0, 1, 0): 4,
    (0, 1, 1, 0, 0): 4,
    (0, 0, 2, 0, 1): 4,
    (0, 0, 2, 1, 1): 4,
    (0, 1, 1, 2, 0): 4,
    (0, 1, 0, 0, 1): 4,
    (0, 1, 1, 0, 2): 3,
    (0, 1, 0, 1, 2): 3,
    (0, 0, 1, 1, 1): 3,
    (1, 1, 0, 0, 1): 3,
    (0, 0, 2, 2, 0): 3,
    (1, 0, 0, 1, 1): 3,
    (0, 1, 2, 1, 0): 3,
    (0, 1, 2, 0, 2): 3,
    (1, 0, 0, 0, 1): 2,
    (0, 1, 1, 1, 0): 2,
    (1, 0, 0, 0, 2): 2,
    (0, 0, 2, 1, 2): 2,
    (1, 1, 0, 1, 0): 2,
    (0, 0, 0, 2, 2): 2,
    (1, 0, 1, 1, 2): 2,
}

# Contrast phases of trauma scans: mostly portal venous, then arterial (Shanmuganathan 2004).
PHASES: dict[Phase, float] = {
    Phase.PORTAL_VENOUS: 0.70,
    Phase.ARTERIAL: 0.16,
    Phase.DELAYED: 0.07,
    Phase.PLAIN: 0.07,
}


@dataclass(frozen=True)
class Case:
    """One patient's injuries: 0 none, 1 present or low grade, 2 high grade (solid organs)."""

    bowel: int = 0
    extravasation: int = 0
    kidney: int = 0
    liver: int = 0
    spleen: int = 0

    def grade(self, target: Target) -> int:
        return int(getattr(self, target.value))

    @property
    def any_injury(self) -> bool:
        return any(self.grade(t) for t in Target)


def draw_case(dice: Dice, *, enriched: float | None = None) -> Case:
    """A case at natural prevalence, or with each target drawn alone at the rate `enriched`."""
    if enriched is None:
        keys = list(JOINT)
        weights = np.asarray([JOINT[k] for k in keys], dtype=float)
        return Case(*keys[int(dice.rng.choice(len(keys), p=weights / weights.sum()))])
    draws = [int(dice.chance(enriched)) for _ in range(5)]
    if dice.chance(0.3):  # whole patients without injury keep their share
        draws = [0] * 5
    grades = [d * (2 if i >= 2 and dice.chance(0.45) else 1) for i, d in enumerate(draws)]
    return Case(*grades)


def draw_phase(dice: Dice, case: Case) -> Phase:
    """A phase; a blush cannot be seen without contrast."""
    phases = [p for p in PHASES if not (case.extravasation and p is Phase.PLAIN)]
    weights = np.asarray([PHASES[p] for p in phases])
    return phases[int(dice.rng.choice(len(phases), p=weights / weights.sum()))]
