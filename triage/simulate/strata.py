"""Strata of patients: who is drawn more often than at natural prevalence, and what each counts.

A set of patients that shall judge five targets cannot wait until a natural sample brings enough of
each injury. Its patients are drawn by strata (`uninjured`, `bowel`, `kidney_high` ...), and within
a stratum as often as in the published labels, with the further injuries that come with it there.
Each patient then stands for as many as natural prevalence has of that combination for one drawn
(Horvitz DG, Thompson DJ, J Am Stat Assoc 1952;47:663-685).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from triage.simulate.fields import Dice
from triage.simulate.plan import Case, Key, draw_from, natural
from triage.types import TARGETS, Target

UNINJURED = "uninjured"
LEVELS = {"low": 1, "high": 2}


def stratum_of(name: str) -> tuple[Target, int | None] | None:
    """Target and grade (None: any) that a stratum is about; None for `uninjured`."""
    if name == UNINJURED:
        return None
    target, _, level = name.partition("_")
    if target not in set(TARGETS) or (level and level not in LEVELS):
        raise ValueError(
            f"Unknown stratum {name!r}: expected uninjured, or a target with or without _low or "
            "_high."
        )
    return Target(target), LEVELS[level] if level else None


def within(stratum: str, table: Mapping[Key, float]) -> dict[Key, float]:
    """The combinations that belong to a stratum, with their probabilities (not normalised)."""
    about = stratum_of(stratum)
    if about is None:
        return {key: p for key, p in table.items() if not any(key)}
    i, grade = TARGETS.index(about[0]), about[1]
    return {k: p for k, p in table.items() if (k[i] > 0 if grade is None else k[i] == grade)}


@dataclass(frozen=True)
class Mix:
    """Patients drawn by strata. `shares`: stratum -> share of the patients, of any sum."""

    shares: Mapping[str, float]

    @cached_property
    def design(self) -> dict[Key, float]:
        """Probability of each combination of injuries under this mix; sums to 1."""
        table, whole = natural(), sum(self.shares.values())
        out = dict.fromkeys(table, 0.0)
        for name, n in self.shares.items():
            inside = within(name, table)
            total = sum(inside.values())
            for key, p in inside.items():
                out[key] += n / whole * p / total
        return out

    def __call__(self, dice: Dice) -> Case:
        """One patient's injuries."""
        return draw_from(self.design, dice)

    def weight(self, case: Case) -> float:
        """How often such a patient is at natural prevalence, relative to this mix."""
        return natural()[case.key] / self.design[case.key]
