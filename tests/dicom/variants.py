"""The ways to write one series that tests go through: poses, transfer syntaxes, encodings."""

from __future__ import annotations

from itertools import product
from typing import Any

from . import write

# Index axes (columns, rows, slices) of the same patient on the table, in the order in which a
# scanner would write them. The first eight are the values of PatientPosition (PS3.3 C.7.3.1.1.2).
POSES = {
    "HFS": "LPS",
    "FFS": "RPI",
    "HFP": "RAS",
    "FFP": "LAI",
    "HFDR": "PRS",
    "HFDL": "ALS",
    "FFDR": "ARI",
    "FFDL": "PLI",
    "slices_downward": "LPI",
    "rows_upward": "LAS",  # (1,0,0, 0,-1,0), as some exports have it
}

LOSSLESS = tuple(name for name in write.SYNTAX if name != "jpeg_extended")

# Sign, bits and class of the object: each as options of `write.write_series`.
ENCODINGS: dict[str, dict[str, Any]] = {
    f"{'signed' if signed else 'unsigned'}_{bits}{'_enhanced' if enhanced else ''}": {
        "signed": signed,
        "bits": bits,
        "enhanced": enhanced,
    }
    for enhanced, signed, bits in product((False, True), (False, True), (12, 16))
}


def position(pose: str) -> dict[str, str]:
    """PatientPosition of a pose, where it has one."""
    return {"PatientPosition": pose} if pose in list(POSES)[:8] else {}


def mixed() -> dict[str, tuple[str, str, str]]:
    """A small share of all combinations: name -> pose, syntax, encoding.

    Each syntax once in classic objects and once in Enhanced ones, the encodings in turn; each pose
    at least twice.
    """
    poses, encodings = list(POSES), list(ENCODINGS)
    chosen = []
    for i, syntax in enumerate(LOSSLESS):
        chosen.append((poses[i % len(poses)], syntax, encodings[i % 4]))
        chosen.append((poses[(i + 5) % len(poses)], syntax, encodings[4 + (i + 2) % 4]))
    return {"-".join(way): way for way in chosen}


def options(way: tuple[str, str, str]) -> dict[str, Any]:
    """What `write.write_series` is told for one way, InstanceNumbers shuffled."""
    pose, syntax, encoding = way
    return {"syntax": syntax, "shuffle": True, **ENCODINGS[encoding], **position(pose)}
