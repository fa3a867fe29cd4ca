"""The case plan: which injuries a patient has, and how bad they are.

`JOINT` counts combinations (bowel, extravasation, kidney, liver, spleen; 0 none, 1 low grade or
present, 2 high grade) in the published labels of the RSNA 2023 Abdominal Trauma Detection
challenge (3,147 patients; combinations seen once are left out).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from triage.simulate.fields import Dice
from triage.types import TARGETS, Phase, Target

Key = tuple[int, int, int, int, int]
ROUNDS = 2000  # of proportional fitting, at most

JOINT: dict[Key, int] = {
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

# Grades a target can have: bowel and extravasation are there or not.
GRADES: dict[Target, int] = {
    Target.BOWEL: 1,
    Target.EXTRAVASATION: 1,
    Target.KIDNEY: 2,
    Target.LIVER: 2,
    Target.SPLEEN: 2,
}

# Contrast phases as the aortic attenuation of the challenge's 4,711 series tells them (limits of
# 125 and 225 HU: Bae KT, Radiology 2010;256:32-61). They do not depend on the case, else the phase
# would tell of an injury. Plain scans (0.2 % there) are made only where somebody asks for them:
# they are outside the intended use, and as no blush shows in them, each would be a negative of
# extravasation.
PHASES: dict[Phase, float] = {
    Phase.PORTAL_VENOUS: 0.51,
    Phase.ARTERIAL: 0.40,
    Phase.DELAYED: 0.09,
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
    def key(self) -> Key:
        return self.bowel, self.extravasation, self.kidney, self.liver, self.spleen

    @property
    def any_injury(self) -> bool:
        return any(self.key)


def natural() -> dict[Key, float]:
    """Probability of each combination at natural prevalence; sums to 1."""
    total = sum(JOINT.values())
    return {key: count / total for key, count in JOINT.items()}


def marginal(table: Mapping[Key, float], target: Target, grade: int | None = None) -> float:
    """Probability of a target's injury in a table of combinations, or of one of its grades."""
    i = TARGETS.index(target)
    return sum(p for key, p in table.items() if (key[i] > 0 if grade is None else key[i] == grade))


def raked(prevalence: Mapping[Target, float]) -> Mapping[Key, float]:
    """Probability of each combination such that targets have the prevalence asked for.

    Iterative proportional fitting (Deming WE, Stephan FF, Ann Math Stat 1940;11:427-444) keeps the
    odds ratios between targets as in `JOINT`, and low against high grade. Targets not named keep
    their natural prevalence. Raises ValueError for a rate outside [0, 1].
    """
    for target, rate in prevalence.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"Expected a prevalence from 0 to 1, got {rate} for {target.value}.")
    if not prevalence:
        return natural()
    return _raked(tuple(sorted(prevalence.items())))


@lru_cache(maxsize=64)
def _raked(prevalence: tuple[tuple[Target, float], ...]) -> Mapping[Key, float]:
    asked = dict(prevalence)
    keys, weight = _smoothed()
    grades = np.asarray(keys)
    for _ in range(ROUNDS):
        before = weight
        for i, target in enumerate(TARGETS):
            wanted = asked.get(target, marginal(natural(), target))
            hurt = grades[:, i] > 0
            share, rest = weight[hurt].sum(), weight[~hurt].sum()  # 1 - share would lose digits
            gain = np.where(hurt, wanted / max(share, 1e-300), (1 - wanted) / max(rest, 1e-300))
            weight = weight * gain
            weight = weight / weight.sum()
        if np.abs(weight - before).max() < 1e-12:
            break
    return MappingProxyType({k: float(w) for k, w in zip(keys, weight, strict=True) if w > 0})


def _smoothed() -> tuple[list[Key], NDArray[np.float64]]:
    """All 108 combinations; a trace of independence lets the unseen ones be reached."""
    table = natural()
    keys: list[Key] = [
        (a, b, c, d, e)
        for a, b, c, d, e in itertools.product(*(range(GRADES[t] + 1) for t in TARGETS))
    ]
    alone = [
        np.prod([marginal(table, t, g) for t, g in zip(TARGETS, key, strict=True)]) for key in keys
    ]
    seen = np.asarray([table.get(key, 0.0) for key in keys])
    return keys, 0.999 * seen + 0.001 * np.asarray(alone)


def draw_from(table: Mapping[Key, float], dice: Dice) -> Case:
    """A case from a table of combinations."""
    keys = list(table)
    weights = np.asarray([table[k] for k in keys], dtype=float)
    return Case(*keys[int(dice.rng.choice(len(keys), p=weights / weights.sum()))])


def draw_case(
    dice: Dice,
    *,
    enriched: float | None = None,
    prevalence: Mapping[Target, float] | None = None,
) -> Case:
    """A case at natural prevalence; or with `prevalence` of some targets (see `raked`); or with
    each target drawn alone at the rate `enriched`, but for three in ten without any injury.

    Raises ValueError for rates outside [0, 1], or where both are given.
    """
    if enriched is None:
        return draw_from(raked(prevalence or {}), dice)
    if prevalence:
        raise ValueError("Expected either enriched or prevalence, got both.")
    if not 0 <= enriched <= 1:
        raise ValueError(f"Expected a rate from 0 to 1 for enriched, got {enriched}.")
    draws = [int(dice.chance(enriched)) for _ in range(5)]
    if dice.chance(0.3):  # whole patients without injury keep their share
        draws = [0] * 5
    grades = [d * (2 if i >= 2 and dice.chance(0.45) else 1) for i, d in enumerate(draws)]
    return Case(*grades)


def draw_phase(dice: Dice, phases: Mapping[Phase, float] = PHASES) -> Phase:
    """A phase, whatever the case."""
    kinds = list(phases)
    weights = np.asarray([phases[p] for p in kinds], dtype=float)
    return kinds[int(dice.rng.choice(len(kinds), p=weights / weights.sum()))]
