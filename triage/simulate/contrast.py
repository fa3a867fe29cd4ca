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
    bump,
    coarse_blur,
    member,
    smooth_noise,
    sub_grid,
)
from triage.simulate.scene import Scene, sub_box
from triage.simulate.tissues import HU, Tissue, mean_hu
from triage.simulate.vessels import coverage, grow
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


Fill = tuple[tuple[slice, slice, slice], Tensor, Tissue]  # box, share of each voxel, tissue


def add_vessels(scene: Scene, dice: Dice) -> list[Fill]:
    """Portal and hepatic veins in the liver, mesenteric vessels in the fat.

    Vessels that fill a voxel go into the labels; the rest is returned as shares of voxels.
    """
    fills = _hepatic(scene, dice) + _mesenteric(scene, dice)
    for box, share, tissue in fills:
        scene.labels[box].masked_fill_(share > 0.6, int(tissue))
    return fills


def _hepatic(scene: Scene, dice: Dice) -> list[Fill]:
    grid = scene.grid
    liver = scene.labels == int(Tissue.LIVER)
    box = sub_box(liver)
    middle = centre_of(scene, (Tissue.LIVER,), box)
    if box is None or middle is None or int(liver[box].sum()) < 1000:
        return []
    low, high = grid.world([s.start for s in box]), grid.world([s.stop for s in box])
    spine = centre_of(scene, (Tissue.VERTEBRA,))
    root = middle + (0.4 * (spine - middle) if spine is not None else np.zeros(3))
    root[2] = low[2] * 0.45 + high[2] * 0.55
    trunk = scene.labels[box] == int(Tissue.PORTAL)
    if bool(trunk.any()):  # where the portal vein enters the liver
        root = random_voxels(_last_slice(trunk), sub_grid(grid, box), dice, 1)[0]
    inner = sub_grid(grid, box)
    ends = random_voxels(liver[box], inner, dice, 170)
    portal = coverage(grid, grow(root[None], ends[:110], dice), dice.uniform(6.5, 8.5), 0.8)
    top = root + np.array([0, -14, 0.0])
    top[2] = high[2] - 0.28 * (high[2] - low[2])
    hepatic = coverage(grid, grow(top[None], ends[110:], dice), dice.uniform(6.0, 8.0), 0.9)
    fills: list[Fill] = []
    for found, tissue in ((portal, Tissue.PORTAL), (hepatic, Tissue.VEIN)):
        if found is not None:
            fills.append((found[0], found[1] * liver[found[0]], tissue))
    return fills


def _last_slice(mask: Tensor) -> Tensor:
    """The mask's highest slice alone."""
    z = mask.any(0).any(0).nonzero()[-1]
    out = torch.zeros_like(mask)
    out[:, :, z] = mask[:, :, z]
    return out


def _mesenteric(scene: Scene, dice: Dice) -> list[Fill]:
    grid = scene.grid
    wall = member(scene.labels, (Tissue.BOWEL_WALL, Tissue.COLON_WALL))
    free = scene.labels == int(Tissue.FAT)
    near = free & (coarse_blur(wall, grid, 14.0) > 0.05)
    ends = np.vstack(
        [
            random_voxels(wall, grid, dice, dice.integer(40, 90)),
            random_voxels(near, grid, dice, dice.integer(90, 180)),
        ]
    )
    aorta = centre_of(scene, (Tissue.AORTA,))
    if not len(ends) or aorta is None:
        return []
    top = float(np.quantile(ends[:, 2], 0.85))
    stem = np.linspace(0, 1, 12)[:, None]
    start, stop = aorta + np.array([4.0, 34, 0]), aorta + np.array([16.0, 40, 0])
    start[2], stop[2] = top, float(np.quantile(ends[:, 2], 0.3))
    root = start + stem * (stop - start)
    fills: list[Fill] = []
    size = dice.uniform(0.8, 1.2)
    for shift, trunk, tissue in ((0.0, 3.6, Tissue.PORTAL), (4.0, 2.6, Tissue.ARTERY)):
        some = ends[:: 1 if shift == 0 else 2] + dice.rng.normal(0, 1 + 0.4 * shift, 3)
        found = coverage(grid, grow(root + shift, some, dice, bend=0.16), size * trunk, 0.8 * size)
        if found is not None:
            fills.append((found[0], found[1] * free[found[0]], tissue))
    return fills


def phase_table(phase: Phase, dice: Dice) -> dict[Tissue, float]:
    """This patient's HU of each tissue; cardiac output moves all vessels together."""
    output = dice.normal(0, 1)
    table = {}
    for tissue, entry in HU.items():
        value = mean_hu(tissue, phase)
        gain = value - entry.plain
        value += dice.normal(0, 0.5) * entry.sd + 0.10 * output * gain
        table[tissue] = value
    if dice.chance(0.25):  # fatty liver, mostly mild
        table[Tissue.LIVER] -= float(np.clip(5 + dice.rng.gamma(1.5, 11), 5, 65))
    if dice.chance(0.12):  # oral contrast
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


# Texture of a tissue: sd in HU of features of about 5 mm.
TEXTURE: dict[Tissue, float] = {
    Tissue.LIVER: 1.8,
    Tissue.SPLEEN: 1.8,
    Tissue.FAT: 3.0,
    Tissue.MUSCLE: 4.0,
    Tissue.BONE: 35,
    Tissue.VERTEBRA: 30,
    Tissue.LUNG: 45,
    Tissue.COLON_CONTENT: 26,
    Tissue.STOMACH_CONTENT: 10,
    Tissue.BOWEL_CONTENT: 6,
    Tissue.BOWEL_WALL: 12,
    Tissue.COLON_WALL: 9,
    Tissue.STOMACH_WALL: 9,
    Tissue.PANCREAS: 11,
    Tissue.SOFT: 6,
    Tissue.HEART: 3,
    Tissue.MYOCARDIUM: 5,
}


def _lookup(labels: Tensor, values: dict[Tissue, float], usual: float = 0.0) -> Tensor:
    """A value for each voxel's tissue, float32 (X, Y, Z)."""
    table = torch.full((max(int(t) for t in Tissue) + 1,), usual, device=labels.device)
    for tissue, value in values.items():
        table[int(tissue)] = value
    return table.index_select(0, labels.int().flatten()).reshape(labels.shape)


def render(scene: Scene, phase: Phase, dice: Dice) -> tuple[Tensor, dict[Tissue, float]]:
    """HU (X, Y, Z) of a scene in a phase, before injuries and scanner, and the table used.

    A real background keeps its own voxels; then the table holds the HU measured in it.
    """
    if scene.hu is not None:
        return scene.hu.clone(), measured_table(scene, phase)
    fills = add_vessels(scene, dice)
    table = phase_table(phase, dice)
    shape, spacing, labels = scene.grid.shape, scene.grid.spacing, scene.labels
    hu = _lookup(labels, table)
    hu += _lookup(labels, TEXTURE, 2.0) * smooth_noise(dice, shape, spacing, 5)
    hu += 2.0 * smooth_noise(dice, shape, spacing, 32)
    muscle = labels == int(Tissue.MUSCLE)
    streak = bump(smooth_noise(dice, shape, spacing, 9) / 0.2)
    hu -= muscle * streak * float(np.clip(dice.rng.gamma(2.0, 9.0), 2, 60))  # fat in the muscle
    if scene.detail is not None:
        hu += scene.detail
    oral = table[Tissue.BOWEL_CONTENT]
    if oral > 100:  # oral contrast has not reached all loops alike
        late = smooth_noise(dice, shape, spacing, 70).clamp_(0, 1.3)
        hu -= (labels == int(Tissue.BOWEL_CONTENT)) * late * (0.7 * oral)
    for box, share, tissue in fills:
        region = hu[box]
        region += share * (table[tissue] - region)
    if phase is Phase.ARTERIAL and dice.chance(0.8):  # mottled spleen of the first pass
        _mottle(hu, scene, dice)
    bone = member(labels, (Tissue.BONE, Tissue.VERTEBRA))
    shell = (2 * blur(bone, spacing, 1.6) - 1).clamp(0, 1)
    dense = dice.uniform(250, 560)
    hu += bone * dense * (1 - shell) ** 2
    return hu, table


def _mottle(hu: Tensor, scene: Scene, dice: Dice) -> None:
    """Serpentine bands of the arterial spleen."""
    spleen = scene.labels == int(Tissue.SPLEEN)
    box = sub_box(spleen)
    if box is None:
        return
    region = hu[box]
    noise = smooth_noise(dice, region.shape, scene.grid.spacing, dice.uniform(11, 20))
    bands = 2 * torch.exp(-((noise / 0.5) ** 2)) - 1.2
    region += spleen[box] * dice.uniform(12, 38) * bands


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
