"""Usual attenuation of tissues by contrast phase, to hold measured HU against.

`basis` says how far a row can be trusted: "paper" rests on the work named, "textbook" is common
teaching quoted from memory, without a page to point at.
"""

from __future__ import annotations

from typing import NamedTuple

from triage.types import Phase


class Usual(NamedTuple):
    """Range of the mean HU of a structure among patients, 120 kV."""

    structure: str
    phase: Phase
    low: float
    high: float
    basis: str
    source: str


_BAE = "Bae KT, Radiology 2010;256:32-61: liver enhances by about 50 HU over its plain 50-65"
_AORTA = "Bae KT, Radiology 2010;256:32-61: 250-300 HU and more wanted for CT angiography"
_TEACHING = "common teaching"
_KIDNEY = "common teaching: corticomedullary phase 25-70 s, nephrographic phase 80-180 s"

USUAL: tuple[Usual, ...] = (
    Usual("liver", Phase.PLAIN, 45, 65, "textbook", _TEACHING),
    Usual("liver", Phase.ARTERIAL, 55, 85, "textbook", _TEACHING),
    Usual("liver", Phase.PORTAL_VENOUS, 95, 125, "paper", _BAE),
    Usual("liver", Phase.DELAYED, 80, 110, "textbook", _TEACHING),
    Usual("spleen", Phase.PLAIN, 40, 55, "textbook", _TEACHING),
    Usual("spleen", Phase.ARTERIAL, 90, 160, "textbook", "common teaching: mottled, wide range"),
    Usual("spleen", Phase.PORTAL_VENOUS, 105, 135, "textbook", _TEACHING),
    Usual("spleen", Phase.DELAYED, 85, 115, "textbook", _TEACHING),
    Usual("kidney", Phase.PLAIN, 25, 40, "textbook", _TEACHING),
    Usual("kidney", Phase.ARTERIAL, 100, 200, "textbook", _KIDNEY),
    Usual("kidney", Phase.PORTAL_VENOUS, 150, 220, "textbook", _KIDNEY),
    Usual("kidney", Phase.DELAYED, 130, 200, "textbook", _KIDNEY),
    Usual("aorta", Phase.PLAIN, 30, 50, "textbook", _TEACHING),
    Usual("aorta", Phase.ARTERIAL, 250, 400, "paper", _AORTA),
    Usual("aorta", Phase.PORTAL_VENOUS, 130, 190, "textbook", _TEACHING),
    Usual("aorta", Phase.DELAYED, 90, 140, "textbook", _TEACHING),
    *(Usual("fat", p, -115, -90, "textbook", _TEACHING) for p in Phase if p is not Phase.UNKNOWN),
    *(Usual("muscle", p, 45, 75, "textbook", _TEACHING) for p in Phase if p is not Phase.UNKNOWN),
)


def usual(structure: str, phase: Phase) -> Usual | None:
    """The row of a structure in a phase, or None."""
    return next((u for u in USUAL if u.structure == structure and u.phase is phase), None)
