"""Reading numbers out of JSON without trusting it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number(data: Mapping[str, Any], key: str, low: float = -1e6, high: float = 1e6) -> float:
    """data[key] as a finite float from low to high; ValueError says what came instead."""
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"Expected a number as {key!r}, got {value!r}"[:200])
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"Expected {key!r} from {low} to {high}, got {value}")
    return float(value)


def table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """data[key] as a JSON object; ValueError says what came instead."""
    value = data.get(key)
    if not isinstance(value, Mapping):
        raise ValueError(f"Expected an object as {key!r}, got {value!r}"[:200])
    return value
