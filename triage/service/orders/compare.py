"""Does the order fit the images? Differences are told, never decided on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from triage.dicom.body_parts import REGIONS, regions
from triage.reasons import REASONS
from triage.service.records.delivery_models import Order
from triage.service.records.models import Study

__all__ = ["REGIONS", "differences", "regions", "side_of"]


def differences(
    order: Order, study: Study, body_parts: Sequence[str], report: Mapping[str, Any] | None
) -> list[str]:
    """Reason codes with their message, one line each."""
    found = []
    if order.patient_id and study.patient_id and order.patient_id != study.patient_id:
        found.append(_line("MISMATCH_PATIENT"))
    wanted = regions(order.body_part)
    shown = set().union(*(regions(part) for part in body_parts)) if body_parts else set()
    analysed = (report or {}).get("status") == "analysed"  # then an abdomen was seen
    if analysed:
        shown.add("abdomen")
    if wanted and shown and not wanted & shown:
        found.append(_line("MISMATCH_BODY_PART"))
    kidney = ((report or {}).get("targets") or {}).get("kidney") or {}
    sides = {order.side, str(kidney.get("side") or "")}
    if sides == {"left", "right"}:
        found.append(_line("MISMATCH_SIDE"))
    return found


def _line(code: str) -> str:
    return f"{code}: {REASONS[code].message} {REASONS[code].fix}"


_SIDES = (
    ("both", r"\b(both|bilateral|bds\.?|beid\w*)\b"),
    ("right", r"\b(right|rechts?|rechte\w*|rt|r)\b"),
    ("left", r"\b(left|links?|linke\w*|lt|l)\b"),
)


def side_of(text: str) -> str:
    """right, left, both or "" in words such as "Kidney, left"."""
    found = [side for side, pattern in _SIDES if re.search(pattern, text.lower())]
    if "both" in found or {"left", "right"} <= set(found):
        return "both"
    return found[0] if found else ""
