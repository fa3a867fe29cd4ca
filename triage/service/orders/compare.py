"""Does the order fit the images? Differences are told, never decided on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from triage.reasons import REASONS
from triage.service.records.delivery_models import Order
from triage.service.records.models import Study

# Region -> words of it (English, German, and the defined terms of BodyPartExamined).
REGIONS: dict[str, tuple[str, ...]] = {
    "abdomen": (
        *("abdom", "pelvi", "becken", "bauch", "liver", "leber", "spleen", "milz", "kidney"),
        *("niere", "bowel", "darm", "trunk", "rumpf", "torso", "tap", "cap", "kub"),
    ),
    "head": ("head", "kopf", "brain", "skull", "cranium", "schaedel", "schädel", "face"),
    "neck": ("neck", "hals", "carotid"),
    "chest": ("chest", "thorax", "lung", "heart", "cardiac"),
    "spine": ("spine", "cspine", "tspine", "lspine", "lumbar", "cervical", "wirbel"),
    "extremity": (
        *("arm", "leg", "hand", "foot", "knee", "hip", "shoulder", "ankle", "wrist", "elbow"),
        "extremity",
    ),
}
_WHOLE = ("wholebody", "whole body", "polytrauma", "ganzk", "pan scan", "panscan", "trauma ct")


def regions(text: str) -> set[str]:
    """Regions that a body part in words names; empty where it says nothing that we know."""
    lower = text.lower()
    if any(word in lower for word in _WHOLE):
        return set(REGIONS)
    found = set()
    for region, words in REGIONS.items():
        if any(
            re.search(rf"\b{re.escape(word)}" if len(word) < 5 else re.escape(word), lower)
            for word in words
        ):
            found.add(region)
    return found


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
