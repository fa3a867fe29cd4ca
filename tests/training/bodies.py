"""Cached patients made of ellipsoids: an organ, and in half of them a dark lesion inside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from triage.training.cache import Entry, entries
from triage.types import ORGAN_LABEL, TARGETS, Organ, Target

SHAPE = (96, 96, 44)  # (X, Y, Z) of 1.5 x 1.5 x 3 mm


def ball(centre: tuple[float, ...], radius_mm: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    axes = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    spacing = (1.5, 1.5, 3.0)
    far = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, centre, spacing, strict=True))
    return np.asarray(far < radius_mm**2)


def write_patients(folder: Path, count: int, **meta: Any) -> list[Entry]:
    """Livers of 42 mm in fat; every other patient has a lesion of 9 mm, 50 HU darker."""
    for i in range(count):
        rng = np.random.default_rng(i)
        own = folder / f"p{i:03d}"
        own.mkdir(parents=True)
        centre = (48.0, 48.0, 22.0)
        liver = ball(centre, 42)
        place = tuple(c + float(d) for c, d in zip(centre, rng.uniform(-8, 8, 3), strict=True))
        lesion = ball(place, 9) & (i % 2 == 1)
        hu = np.where(liver, rng.uniform(70, 130), -90.0) - 50 * lesion + rng.normal(0, 10, SHAPE)
        labels = np.zeros((2, *SHAPE), np.uint8)
        labels[0][liver] = ORGAN_LABEL[Organ.LIVER]
        labels[1][lesion] = 1 << TARGETS.index(Target.LIVER)
        np.save(own / "hu.npy", hu.transpose(2, 1, 0).round().astype(np.int16))
        np.save(own / "labels.npy", labels.transpose(0, 3, 2, 1))
        grades = {t.value: 2 * (i % 2) if t is Target.LIVER else 0 for t in TARGETS}
        told = {"person": own.name, "phase": "portal_venous", "grades": grades}
        told |= {"known": [Organ.LIVER.value], "origin": [0.0, 0.0, 0.0], **meta}
        (own / "meta.json").write_text(json.dumps(told))
    return entries(folder)
