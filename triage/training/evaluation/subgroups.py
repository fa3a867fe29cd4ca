"""How detection depends on grade, size and contrast of the injury.

Each group of injured patients is compared with all patients without that injury.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triage.decision.auc import auc_interval
from triage.training.evaluation.rates import clopper_pearson

Floats = NDArray[np.float64]
GRADES = {"low": 1, "high": 2}
# Column -> lower edges of its bins; the last has no upper edge. AAST tells 1, 3, 5 and 10 cm apart.
BINS: dict[str, tuple[float, ...]] = {
    "lesion_mm": (0, 10, 20, 30, 50),
    "lesion_ml": (0, 1, 5, 20, 100),
    "contrast_hu": (0, 10, 20, 40, 80),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One target's patients: scores, labels and persons (n,), and its two cutoffs (NaN: none)."""

    scores: Floats
    labels: Floats
    persons: Sequence[str]
    rule_out: float
    rule_in: float

    def against_healthy(self, group: NDArray[np.bool_]) -> dict[str, Any]:
        """AUC of the group against all negatives, and its sensitivity at both cutoffs."""
        chosen = group | (self.labels == 0)
        persons = [p for p, c in zip(self.persons, chosen, strict=True) if c]
        out: dict[str, Any] = {
            "positives": int(group.sum()),
            "auc": auc_interval(
                self.scores[chosen], group[chosen].astype(np.int64), persons
            ).to_dict(),
        }
        for name in ("rule_out", "rule_in"):
            cutoff = getattr(self, name)
            if not math.isnan(cutoff):
                hits = int((self.scores[group] >= cutoff).sum())
                rate = clopper_pearson(hits, int(group.sum()))
                out[f"{name}_sensitivity"] = rate.to_dict()
        return out


def by_grade(column: Column, grade: Floats) -> dict[str, Any]:
    """`low` and `high` against none; empty where no positive has a grade."""
    groups = {name: (column.labels == 1) & (grade == value) for name, value in GRADES.items()}
    return {name: column.against_healthy(group) for name, group in groups.items() if group.any()}


def by_bins(column: Column, name: str, values: Floats) -> list[dict[str, Any]]:
    """Bins of a column of `BINS`, by magnitude; those without a patient are left out."""
    edges = (*BINS[name], math.inf)
    out = []
    for low, high in itertools.pairwise(edges):
        size = np.abs(values)
        group = (column.labels == 1) & (size >= low) & (size < high)
        if group.any():
            limit = None if math.isinf(high) else high
            out.append({"from": low, "below": limit, **column.against_healthy(group)})
    return out
