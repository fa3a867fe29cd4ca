"""Artefacts of slices: dark bands and streaks of dense bone and arms, stars around metal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from triage.simulate.fields import Dice, smooth_noise

METAL = 1900.0  # HU; denser than bone


def _ripple(dice: Dice, n: int, pixel: float, scale_mm: float) -> Tensor:
    """Smooth noise along one line, (n,), unit sd."""
    return smooth_noise(dice, (n, 1, 1), (pixel, 1.0, 1.0), scale_mm)[:, 0, 0]


class Artefacts:
    """Adds artefacts to slabs (slices, rows, columns) of one series, HU.

    `strength`: 0 none, 1 usual. `noise`: sd in HU of the series. Photons are few along rows with
    much tissue: noise becomes horizontal streaks there, between the arms, the hips or the
    shoulders. Beam hardening darkens the rows between dense bones. Simple on purpose:
    first-order effects along the rows.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        pixel: tuple[float, float],
        strength: float,
        noise: float,
        dice: Dice,
    ) -> None:
        self.pixel, self.strength, self.dice = pixel, strength, dice
        self.grain = 0.3 * noise  # HU of a streak where photons are few
        self.across = torch.stack(
            [_ripple(dice, columns, pixel[1], mm) for mm in (70.0, 160.0)]
        )  # (2, columns)
        self.across[1] += 1.0
        self.window = torch.hann_window(2 * max(2, round(14 / pixel[0])) + 1, periodic=False)
        self.window = (self.window / self.window.sum()).to(dice.device)
        self.phase = dice.uniform(0, 2 * math.pi)

    def __call__(self, slab: Tensor) -> Tensor:
        if self.strength <= 0:
            return slab
        rows = slab.shape[1]
        some = slab[:, :, ::3]  # enough for sums along the rows
        step = 3 * self.pixel[1] / 1000
        water = (some + 1000).clamp_(0, 2500).sum(2) * step  # mm of water a row
        dense = (some - 250).clamp_(0, 1500).sum(2) * step
        smooth = torch.nn.functional.conv1d(
            dense[:, None], self.window[None, None], padding=len(self.window) // 2
        )[:, 0, :rows]
        band = -0.35 * (dense - smooth).clamp(-40, 40) - 0.12 * smooth.clamp(0, 60)
        starved = ((water / 330) ** 4).clamp(0, 3)
        fine = self.dice.randn((slab.shape[0], rows, 2))
        fine = fine * starved[:, :, None] * self.grain
        fine[:, :, 1] += band
        out = torch.matmul(fine * (0.8 * self.strength), self.across.to(slab.device)).add_(slab)
        return self._stars(out, slab)

    def _stars(self, out: Tensor, slab: Tensor) -> Tensor:
        peak = slab.flatten(1).amax(1)
        for k in (peak > METAL).nonzero().flatten().tolist():
            metal = (slab[k] > METAL).nonzero().float()
            centre, area = metal.mean(0), len(metal) * self.pixel[0] * self.pixel[1]
            y = (torch.arange(slab.shape[1], device=slab.device) - centre[0]) * self.pixel[0]
            x = (torch.arange(slab.shape[2], device=slab.device) - centre[1]) * self.pixel[1]
            r = (y[:, None] ** 2 + x[None, :] ** 2).sqrt()
            angle = torch.atan2(y[:, None], x[None, :])
            rays = torch.cos(2 * angle) + 0.8 * torch.cos(7 * angle + self.phase)
            rays = rays + 0.7 * torch.cos(17 * angle - self.phase)
            strength = 60 * math.sqrt(min(area, 900.0) / 20) * self.strength
            out[k] -= strength * rays * torch.exp(-r / 70) / (1 + r / 9)
        return out
