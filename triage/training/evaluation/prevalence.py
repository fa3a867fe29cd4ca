"""Shares of patients with an injury in the published labels."""

from __future__ import annotations

from collections.abc import Mapping

from triage.simulate.plan import JOINT
from triage.types import TARGETS, Target


def natural() -> dict[Target, float]:
    """Share of patients with each injury in the case plan (RSNA 2023 labels, trauma centres)."""
    total = sum(JOINT.values())
    return {
        t: sum(n for case, n in JOINT.items() if case[i]) / total for i, t in enumerate(TARGETS)
    }


def natural_any() -> float:
    """Share of patients with any injury."""
    return sum(n for case, n in JOINT.items() if any(case)) / sum(JOINT.values())


def high_share() -> dict[Target, float]:
    """Share of high grades among the injuries of a target (0 where the labels know no grade)."""
    out = {}
    for i, target in enumerate(TARGETS):
        high = sum(n for case, n in JOINT.items() if case[i] == 2)
        out[target] = high / sum(n for case, n in JOINT.items() if case[i])
    return out


def of_any(shares: Mapping[Target, float] | None) -> float | None:
    """The natural share of any injury where all shares are the natural ones, else None."""
    return natural_any() if shares == natural() else None
