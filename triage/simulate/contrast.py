"""From tissues to attenuation: vessels, contrast phase, texture. HU before scanner and noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.fields import (
    Dice,
    Grid,
    blur,
    empty,
    member,
    paint_tube,
    smooth_noise,
    smooth_path,
)
from triage.simulate.scene import Scene
from triage.simulate.tissues import HU, Tissue, mean_hu
from triage.types import Phase


def centre_of(
    scene: Scene, tissues: tuple[Tissue, ...], box: tuple[slice, slice, slice] | None = None
) -> NDArray[np.float64] | None:
    """Centroid of tissues in RAS+ mm, or None where there are none."""
    region = scene.labels if box is None else scene.labels[box]
    where = member(region, tissues).nonzero()
    if len(where) == 0:
        return None
    mean = where.float().mean(0).cpu().numpy()
    if box is not None:
        mean = mean + [s.start for s in box]
    return scene.grid.world(mean.tolist())


def random_voxels(mask: Tensor, grid: Grid, dice: Dice, n: int) -> NDArray[np.float64]:
    """`n` random points (n, 3) in RAS+ mm inside a mask of the grid's shape; (0, 3) if empty."""
    where = mask.nonzero()
    if len(where) == 0:
        return np.zeros((0, 3))
    pick = dice.rng.integers(0, len(where), n)
    return np.asarray([grid.world(where[i].tolist()) for i in pick])


def _tree(
    grid: Grid, root: NDArray[np.float64], ends: NDArray[np.float64], radius: float, dice: Dice
) -> NDArray[np.float32]:
    """Distance from the walls of a vessel tree with one root."""
    distance = np.full(grid.shape, 1e3, dtype=np.float32)
    for end in ends:
        span = np.linalg.norm(end - root)
        bend = root + 0.45 * (end - root) + dice.rng.normal(0, 0.12 * span, 3)
        path = smooth_path(np.asarray([root, bend, end]), 2.0)
        paint_tube(distance, grid, path, np.linspace(radius, 0.9, len(path)), 1.0)
    return distance


def add_vessels(scene: Scene, dice: Dice) -> None:
    """Portal and hepatic veins in the liver, mesenteric vessels in the fat. Changes the labels."""
    grid, labels = scene.grid, scene.labels
    liver = labels == int(Tissue.LIVER)
    where = liver.nonzero()
    if len(where) > 1000:
        low, high = where.amin(0), where.amax(0)
        middle = centre_of(scene, (Tissue.LIVER,))
        if middle is None:
            return
        spine = centre_of(scene, (Tissue.VERTEBRA,))
        inward = 0.55 if spine is None else 0.4
        root = middle + inward * ((spine if spine is not None else middle) - middle)
        root[2] = grid.world(low.tolist())[2] * 0.4 + grid.world(high.tolist())[2] * 0.6
        portal = _tree(grid, root, random_voxels(liver, grid, dice, 16), 4.5, dice)
        labels[liver & (torch.from_numpy(portal) < 0)] = int(Tissue.PORTAL)
        top = root + np.array([0, 0, 30.0])
        hepatic = _tree(grid, top, random_voxels(liver, grid, dice, 8), 4.0, dice)
        labels[liver & (torch.from_numpy(hepatic) < 0)] = int(Tissue.VEIN)
    wall = member(labels, (Tissue.BOWEL_WALL, Tissue.COLON_WALL))
    ends = random_voxels(wall, grid, dice, 26)
    aorta = centre_of(scene, (Tissue.AORTA,))
    if len(ends) and aorta is not None:
        root = aorta + np.array([4.0, 34.0, 0.0])
        root[2] = float(np.median(ends[:, 2])) + 35
        mesenteric = torch.from_numpy(_tree(grid, root, ends, 2.4, dice))
        fat = labels == int(Tissue.FAT)
        labels[fat & (mesenteric < 0)] = int(Tissue.PORTAL)


def phase_table(phase: Phase, dice: Dice) -> dict[Tissue, float]:
    """This patient's HU of each tissue; cardiac output moves all vessels together."""
    output = dice.normal(0, 1)
    table = {}
    for tissue, entry in HU.items():
        value = mean_hu(tissue, phase)
        gain = value - entry.plain
        value += dice.normal(0, 0.5) * entry.sd + 0.10 * output * gain
        table[tissue] = value
    if dice.chance(0.25):  # fatty liver
        table[Tissue.LIVER] -= dice.uniform(10, 60)
    if dice.chance(0.2):  # oral contrast
        dose = dice.uniform(120, 380)
        for tissue in (Tissue.BOWEL_CONTENT, Tissue.STOMACH_CONTENT):
            table[tissue] = dose
    if phase is Phase.DELAYED and dice.chance(0.5):
        table[Tissue.URINE] = dice.uniform(60, 600)
    for right, left in (
        (Tissue.CORTEX_RIGHT, Tissue.CORTEX_LEFT),
        (Tissue.MEDULLA_RIGHT, Tissue.MEDULLA_LEFT),
    ):
        table[left] = table[right] + dice.normal(0, 4)
    return table


# Texture of a tissue: (sd in HU, feature size in mm).
TEXTURE: dict[Tissue, tuple[float, float]] = {
    Tissue.LIVER: (3.5, 9),
    Tissue.SPLEEN: (3.5, 10),
    Tissue.FAT: (7, 6),
    Tissue.MUSCLE: (12, 5),
    Tissue.BONE: (60, 5),
    Tissue.VERTEBRA: (45, 5),
    Tissue.LUNG: (60, 5),
    Tissue.COLON_CONTENT: (32, 5),
    Tissue.STOMACH_CONTENT: (24, 7),
    Tissue.BOWEL_CONTENT: (8, 7),
    Tissue.PANCREAS: (16, 5),
    Tissue.SOFT: (10, 6),
    Tissue.HEART: (6, 12),
}


def render(scene: Scene, phase: Phase, dice: Dice) -> tuple[Tensor, dict[Tissue, float]]:
    """HU (X, Y, Z) of a scene in a phase, before injuries and scanner, and the table used.

    A real background keeps its own voxels; then the table holds the HU measured in it.
    """
    if scene.hu is not None:
        return scene.hu.clone(), measured_table(scene, phase)
    add_vessels(scene, dice)
    table = phase_table(phase, dice)
    size = max(int(t) for t in Tissue) + 1
    values, sds = torch.zeros(size), torch.zeros(size)
    for tissue, value in table.items():
        values[int(tissue)] = value
        sds[int(tissue)] = TEXTURE.get(tissue, (2.0, 6))[0]
    index = scene.labels.int()
    hu = values[index]
    fine = smooth_noise(dice, scene.grid.shape, scene.grid.spacing, 5)
    hu += sds[index] * fine
    coarse = smooth_noise(dice, scene.grid.shape, scene.grid.spacing, 32)
    soft = hu > -300
    hu[soft] += 2.5 * coarse[soft]
    spleen = scene.labels == int(Tissue.SPLEEN)
    if phase is Phase.ARTERIAL and dice.chance(0.8):  # mottled spleen of the first pass
        mottle = smooth_noise(dice, scene.grid.shape, scene.grid.spacing, dice.uniform(10, 18))
        hu[spleen] += dice.uniform(12, 35) * mottle[spleen]
    bone = member(scene.labels, (Tissue.BONE, Tissue.VERTEBRA))
    shell = blur(bone, scene.grid.spacing, 2.2)
    hu[bone] += 420 * (1 - ((shell[bone] - 0.5) * 2).clamp(0, 1)) ** 2
    return hu, table


def measured_table(scene: Scene, phase: Phase) -> dict[Tissue, float]:
    """Median HU of each labelled tissue of a real background; the usual HU for the others."""
    if scene.hu is None:
        raise ValueError("Expected a scene with a real background")
    table = {}
    for tissue in HU:
        values = scene.hu[scene.labels == int(tissue)]
        enough = len(values) > 200
        table[tissue] = float(values[::7].median()) if enough else mean_hu(tissue, phase)
    return table


def sub_box(mask: Tensor, margin: int = 2) -> tuple[slice, slice, slice] | None:
    """Bounding box of a mask with a margin in voxels, or None if it is empty."""
    box = []
    for d in range(3):
        other = [i for i in range(3) if i != d]
        line = mask.any(other[1]).any(other[0])
        index = line.nonzero().flatten()
        if len(index) == 0:
            return None
        low = max(int(index[0]) - margin, 0)
        box.append(slice(low, min(int(index[-1]) + margin + 1, mask.shape[d])))
    found = (box[0], box[1], box[2])
    return None if empty(found) else found
