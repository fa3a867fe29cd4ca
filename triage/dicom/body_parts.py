"""What part of the body a header or an order names, in words or as a defined term."""

from __future__ import annotations

import re

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
