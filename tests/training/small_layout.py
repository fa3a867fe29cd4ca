"""A small data set in the RSNA-2023 layout: single PNG slices, with a planted sign of injury."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from triage.simulate.tables import TRAIN, train_row
from triage.types import TARGETS, Target


def picture(rng: np.random.Generator, injured: bool, side: int = 96) -> Image.Image:
    """A grey ellipse on black; the injured have a dark hole in it."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    grey = np.where((x / 0.85) ** 2 + (y / 0.65) ** 2 < 1, 135.0, 0.0)
    grey += (grey > 0) * rng.normal(0, 6, grey.shape)
    if injured:
        cx, cy = rng.uniform(-0.3, 0.3, 2)
        grey[(x - cx) ** 2 + (y - cy) ** 2 < 0.1] *= 0.45
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def write_layout(
    out: Path,
    injured: Sequence[bool],
    *,
    target: Target = Target.LIVER,
    slices: int = 3,
    seed: int = 0,
    planted: bool = True,
) -> Path:
    """One series a patient; `injured[i]` is what train.csv says of patient 100 + i.

    `planted=False`: pictures that have nothing to do with the labels.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i, hurt in enumerate(injured):
        grades = dict.fromkeys(TARGETS, 0) | {target: int(hurt)}
        rows.append(train_row(100 + i, grades))
        folder = out / "train_images" / str(100 + i) / str(9000 + i)
        folder.mkdir(parents=True)
        shown = hurt if planted else bool(rng.random() < 0.5)
        for k in range(slices):
            picture(rng, shown).save(folder / f"{10 * k + 1}.png")
    with (out / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, TRAIN)
        writer.writeheader()
        writer.writerows(rows)
    return out
