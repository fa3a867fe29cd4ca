"""The scanner: point spread, slice profile, breathing, table, artefacts, noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from triage.simulate.artefacts import Artefacts
from triage.simulate.fields import Dice, Grid, blur
from triage.simulate.noise import Noise, dose, shared_noise

SLAB = 16  # slices in memory at once


@dataclass(frozen=True)
class Scanner:
    """How the image was made. `noise` is the sd in HU of slices of 2.5 mm in a usual patient."""

    psf_mm: float  # in plane, sd of the Gaussian point spread
    slice_mm: float  # slice thickness
    noise: float
    grain_mm: float  # correlation length of the noise
    motion: float  # breathing blur, mm
    streaks: float = 0.5  # strength of artefacts, 1 usual
    blotch: float = 0.0  # coarse noise of iterative reconstruction, 0 none, 5 much
    table: bool = True  # the patient table is in the picture

    @staticmethod
    def draw(dice: Dice) -> Scanner:
        sharp = dice.chance(0.25)
        return Scanner(
            psf_mm=dice.uniform(0.35, 0.6) if sharp else dice.uniform(0.55, 0.9),
            slice_mm=float(dice.rng.choice([1.0, 1.25, 2.0, 2.5, 3.0, 5.0])),
            noise=dice.uniform(9, 20) if sharp else dice.uniform(5, 15),
            grain_mm=dice.uniform(0.5, 0.8) if sharp else dice.uniform(0.8, 1.4),
            motion=dice.uniform(0.5, 2.5) if dice.chance(0.15) else 0.0,
            streaks=float(dice.rng.gamma(2.0, 0.3)),
            blotch=dice.uniform(0.3, 4.0) if dice.chance(0.6) else 0.0,
            table=dice.chance(0.88),
        )


def outline(hu: Tensor) -> Tensor:
    """Shadow of the body along z: mask (X, Y) of what is tissue in a twentieth of the slices."""
    return (hu > -300).float().mean(2) > 0.05


def table(hu: Tensor, grid: Grid, xs: Tensor, ys: Tensor, dice: Dice) -> Tensor:
    """The patient table: HU at `ys` (rows) and `xs` (columns), mm; -1000 where there is none.

    A curved board of carbon fibre around foam, just under the back; the same in all slices.
    """
    body = outline(hu)
    middle = float(xs.mean())
    low = torch.where(body, grid.axis(1)[None, :], torch.tensor(1e4, device=body.device)).amin(1)
    bend = dice.uniform(450, 900)
    x = grid.axis(0) - middle
    under = (low - x**2 / (2 * bend))[x.abs() < 150]
    top = float(under.min()) - dice.uniform(1, 5)
    half, deep = dice.uniform(195, 225), dice.uniform(30, 60)
    px, py = (xs - middle)[None, :], ys[:, None]
    upper = top + px**2 / (2 * bend)
    lower = upper - deep * (1 - (px / half) ** 2).clamp_min(0) ** 0.7
    inside = torch.minimum(upper - py, py - lower)  # mm below the surface
    inside = torch.minimum(inside, half - px.abs())
    soft = float((xs[1] - xs[0]).abs())
    board = torch.sigmoid(4 * inside / soft)
    core = torch.sigmoid(4 * (inside - dice.uniform(1.5, 3.0)) / soft)
    shell_hu, foam_hu = dice.uniform(-100, 90), dice.uniform(-960, -900)
    return -1000 + board * (shell_hu + 1000) - core * (shell_hu - foam_hu)


def scan(hu: Tensor, grid: Grid, scanner: Scanner, dice: Dice, *, soften: bool = True) -> Tensor:
    """The finished volume in HU (X, Y, Z) from the ideal one.

    `soften=False` for real backgrounds: they were scanned once already, table and all.
    """
    loud, by_slice, by_place = dose(hu, grid, scanner.slice_mm)
    out = hu
    if soften:
        z = scanner.slice_mm / 2.355
        if scanner.table:
            board = table(hu, grid, grid.axis(0), grid.axis(1), dice)  # (Y, X)
            out = torch.maximum(out, board.T[:, :, None])
        out = blur(out, grid.spacing, (scanner.psf_mm, scanner.psf_mm, z))
    if scanner.motion:
        out = blur(out, grid.spacing, (0, scanner.motion, 0.5 * scanner.motion))
    shape, pixel = (grid.shape[1], grid.shape[0]), (grid.spacing[1], grid.spacing[0])
    shared = shared_noise(grid.spacing[2], scanner.slice_mm)
    noise = Noise(shape, pixel, scanner.grain_mm, shared, dice, scanner.blotch)
    strength = scanner.streaks if soften else 0.0
    artefacts = Artefacts(*shape, pixel, strength, scanner.noise * loud, dice)
    finished = torch.empty_like(out)
    level = scanner.noise * loud * by_place.T  # (Y, X)
    for start in range(0, grid.shape[2], SLAB):
        some = slice(start, start + SLAB)
        slab = artefacts(out[:, :, some].permute(2, 1, 0))  # (slices, Y, X)
        slab = slab + noise(len(slab)).mul_(level).mul_(by_slice[some, None, None])
        finished[:, :, some] = slab.permute(2, 1, 0)
    return finished
