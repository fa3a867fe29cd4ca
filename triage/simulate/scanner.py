"""The scanner: point spread, slice profile, breathing, noise with a CT-like power spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from triage.simulate.fields import Dice, Grid, blur


@dataclass(frozen=True)
class Scanner:
    """How the image was made. `noise` is the sd in HU in the soft tissue of the finished volume."""

    psf_mm: float  # in plane, sd of the Gaussian point spread
    slice_mm: float  # slice thickness
    noise: float
    grain_mm: float  # correlation length of the noise
    motion: float  # breathing blur, mm

    @staticmethod
    def draw(dice: Dice) -> Scanner:
        sharp = dice.chance(0.25)
        return Scanner(
            psf_mm=dice.uniform(0.35, 0.6) if sharp else dice.uniform(0.55, 0.9),
            slice_mm=float(dice.rng.choice([1.0, 1.25, 2.0, 2.5, 3.0, 5.0])),
            noise=dice.uniform(9, 20) if sharp else dice.uniform(5, 15),
            grain_mm=dice.uniform(0.5, 0.8) if sharp else dice.uniform(0.8, 1.4),
            motion=dice.uniform(0.5, 2.5) if dice.chance(0.15) else 0.0,
        )


def noise_field(dice: Dice, grid: Grid, grain_mm: float) -> Tensor:
    """Noise (X, Y, Z) of unit sd: a ramp filter cut off by the kernel, as after back-projection.

    White noise minus its wide blur has a power spectrum that rises from zero and falls at the
    kernel's cut-off (Solomon and Samei, Med Phys 2012;39:6048-6054).
    """
    white = dice.randn(grid.shape)
    fine = blur(white, grid.spacing, (grain_mm, grain_mm, 0.4 * grain_mm))
    half = F.avg_pool2d(white.permute(2, 0, 1)[:, None], 2, ceil_mode=True)  # (Z, 1, X/2, Y/2)
    near = F.avg_pool2d(F.pad(half, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    wide = F.interpolate(near, size=grid.shape[:2], mode="bilinear", align_corners=False)
    out = fine - 0.8 * wide[:, 0].permute(1, 2, 0)
    return out / out.std().clamp_min(1e-6)


def scan(hu: Tensor, grid: Grid, scanner: Scanner, dice: Dice, *, soften: bool = True) -> Tensor:
    """The finished volume in HU (X, Y, Z) from the ideal one.

    `soften=False` for real backgrounds: they were scanned once already.
    """
    out = hu
    if soften:
        z = scanner.slice_mm / 2.355
        out = blur(out, grid.spacing, (scanner.psf_mm, scanner.psf_mm, z))
    if scanner.motion:
        out = blur(out, grid.spacing, (0, scanner.motion, 0.5 * scanner.motion))
    pixel = grid.spacing[0] * grid.spacing[1]
    area = float((out > -500).sum()) * pixel / max(out.shape[2], 1)  # mm2 of patient a slice
    dose = math.sqrt(max(area, 2e4) / 7e4)  # a larger patient stops more photons
    return out + scanner.noise * dose * noise_field(dice, grid, scanner.grain_mm)
