"""Figures as people read them: shared by the page and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "-"


def number(value: float | None, digits: int = 2) -> str:
    """Fixed digits; a dash where there is no value."""
    return NONE if value is None else f"{value:.{digits}f}"


def interval(found: Mapping[str, Any] | None, digits: int = 2) -> str:
    """`0.86 (0.80-0.91)`."""
    if found is None or found.get("value") is None:
        return NONE
    value, low, high = (number(found[k], digits) for k in ("value", "low", "high"))
    dash = " to " if low.startswith("-") else "-"
    return f"{value} ({low}{dash}{high})"


def signed(found: Mapping[str, Any] | None, digits: int = 2) -> str:
    """A difference: `+0.03 (-0.01 to +0.07)`."""
    if found is None or found.get("value") is None:
        return NONE
    value, low, high = (f"{found[k]:+.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def lead(found: Mapping[str, Any]) -> str:
    """A branch's lead over the score that is decided on, or that it is that score."""
    return "is the score" if found["low"] == found["high"] == 0 else signed(found)


def led(found: Any) -> str:
    """`, +0.03 (-0.01 to +0.07)` behind an AUC that has a `lead` over another's; else nothing."""
    return f", {signed(found['lead'])}" if isinstance(found, Mapping) and "lead" in found else ""


def percent(value: float | None) -> str:
    """One decimal; what is not quite all or nothing is never rounded to it."""
    if value is None:
        return NONE
    text = f"{100 * value:.1f}"
    if text == "100.0":
        return "100" if value == 1 else ">99.9"
    if text == "0.0":
        return "0" if value == 0 else "<0.1"
    return text


def percents(found: Mapping[str, Any] | None) -> str:
    """`93.8 (84.8-98.3) %`."""
    if found is None or found.get("value") is None:
        return NONE
    value, low, high = (percent(found[k]) for k in ("value", "low", "high"))
    return f"{value} ({low}-{high}) %"


def bin_name(found: Mapping[str, Any], unit: str) -> str:
    """`10-20 mm`, `>= 50 mm`."""
    if found["below"] is None:
        return f">= {found['from']:g} {unit}"
    return f"{found['from']:g}-{found['below']:g} {unit}"


def by_chance(targets: Mapping[str, Any]) -> list[str]:
    """Targets whose AUC is not shown to be above 0.5."""
    return [
        name
        for name, found in targets.items()
        if found["auc"]["low"] is None or found["auc"]["low"] <= 0.5
    ]


def unsuspected(joint: Mapping[str, Any]) -> str:
    """How many of the healthy no target alarms about, and what is known of them."""
    who = f"{joint['healthy']} patients {joint['healthy_means']}"
    return f"No target is suspected in {percents(joint['specificity'])} of {who}."


UNITS = {"lesion_mm": "mm", "lesion_ml": "ml", "contrast_hu": "HU"}
GROUPS = {
    "lesion_mm": "By size (largest extent)",
    "lesion_ml": "By volume",
    "contrast_hu": "By contrast (absolute difference to the organ)",
}
