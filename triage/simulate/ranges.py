"""Every range that injuries and look-alikes are drawn from, with where it comes from.

A key is `kind.quantity`, with an organ (liver, spleen, kidney) and a grade (low: AAST I-III,
high: IV-V) where the quantity depends on them: `laceration.depth_mm.liver.low`. A number is drawn
uniformly between both ends; a count is a whole number, both ends included; of a probability or rate
both ends are the same. Lengths in mm, attenuation in HU.

A frozen test protocol carries its own table: `Ranges.from_dict` takes exactly what `to_dict` gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from triage.simulate.fields import Dice
from triage.simulate.range_tables import INJURIES, LOOKALIKES, UNITS, Row


@dataclass(frozen=True, slots=True)
class Range:
    """`low` to `high` in `unit` (one of `UNITS`); `source` is a citation or "engineering choice".

    Raises ValueError for numbers that cannot be drawn from.
    """

    low: float
    high: float
    unit: str
    source: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unknown unit {self.unit!r}: expected one of {', '.join(UNITS)}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"expected finite low <= high, got {self.low} and {self.high}")
        if self.unit != "HU" and self.low < 0:
            raise ValueError(f"expected {self.unit} >= 0, got {self.low}")
        if self.unit == "p" and not (self.low == self.high <= 1):
            raise ValueError(f"expected one probability, got {self.low} and {self.high}")
        if self.unit == "count" and not (float(self.low).is_integer() and self.high % 1 == 0):
            raise ValueError(f"expected whole numbers, got {self.low} and {self.high}")


def _table(rows: Mapping[str, Row]) -> dict[str, Range]:
    return {key: Range(*row) for key, row in rows.items()}


def _default() -> Mapping[str, Range]:
    return MappingProxyType(_table({**INJURIES, **LOOKALIKES}))


@dataclass(frozen=True)
class Ranges:
    """The whole table; `Ranges()` is the one that patients are made with by default."""

    table: Mapping[str, Range] = field(default_factory=_default)

    def __post_init__(self) -> None:
        missing = set(INJURIES) | set(LOOKALIKES)
        unknown = set(self.table) - missing
        missing -= set(self.table)
        if missing or unknown:
            raise ValueError(f"ranges: missing {sorted(missing)}, unknown {sorted(unknown)}")
        object.__setattr__(self, "table", MappingProxyType(dict(self.table)))

    def __reduce__(self) -> tuple[type[Ranges], tuple[dict[str, Range]]]:
        return Ranges, (dict(self.table),)  # so that other processes can have it

    def __getitem__(self, key: str) -> Range:
        return self.table[key]

    def draw(self, key: str, dice: Dice) -> float:
        """A number between both ends."""
        entry = self.table[key]
        return dice.uniform(entry.low, entry.high)

    def count(self, key: str, dice: Dice) -> int:
        """A whole number, both ends included."""
        entry = self.table[key]
        return dice.integer(int(entry.low), int(entry.high))

    def chance(self, key: str, dice: Dice) -> bool:
        """Whether something happens."""
        return dice.chance(self.table[key].low)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """As JSON: `{key: {low, high, unit, source}}`."""
        return {
            key: {"low": r.low, "high": r.high, "unit": r.unit, "source": r.source}
            for key, r in self.table.items()
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Ranges:
        """The inverse of `to_dict`; ValueError for a missing or unknown key, unit or number."""
        default = _default()
        table = {}
        for key, row in data.items():
            if not isinstance(row, Mapping) or set(row) != {"low", "high", "unit", "source"}:
                raise ValueError(f"{key}: expected low, high, unit and source, got {row!r}")
            if not all(type(row[end]) in (int, float) for end in ("low", "high")):
                raise ValueError(f"{key}: expected numbers, got {row['low']!r}, {row['high']!r}")
            if key in default and row["unit"] != default[key].unit:
                raise ValueError(f"{key}: expected {default[key].unit}, got {row['unit']!r}")
            try:
                table[key] = Range(
                    float(row["low"]), float(row["high"]), str(row["unit"]), str(row["source"])
                )
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        return Ranges(table)
