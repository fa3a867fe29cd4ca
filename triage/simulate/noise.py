"""CT noise: one model for volumes in memory and for the slices of a study.

White noise through sqrt(f) times a Gaussian: the ramp of back-projection and the kernel's cut-off
give a power spectrum of f MTF(f)^2 (Solomon and Samei, Med Phys 2012;39:6048-6054). Iterative
reconstruction takes fine noise away and leaves coarse: a share at low frequencies is added.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from triage.simulate.fields import Dice, Grid, blur

REFERENCE = 0.8  # mm: pixels on which noise has unit sd; on coarser ones its fine part is lost


def fast_size(n: int) -> int:
    """The next length with prime factors 2, 3 and 5 alone, even: quick to transform."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and n % 2 == 0:
            return n
        n += 1


def _filter(
    rows: int, columns: int, pixel: tuple[float, float], grain_mm: float, blotch: float
) -> Tensor:
    """Square root of the power spectrum, (rows, columns // 2 + 1)."""
    fy = torch.fft.fftfreq(rows, pixel[0])[:, None]
    fx = torch.fft.rfftfreq(columns, pixel[1])[None, :]
    f = torch.sqrt(fx**2 + fy**2)
    # a grain of 1 mm puts the peak of the spectrum at 0.19 per mm
    ramp = f + 0.1 * blotch * torch.exp(-((f / 0.09) ** 2))
    return torch.sqrt(ramp) * torch.exp(-2 * (math.pi * 0.6 * grain_mm * f) ** 2)


def _power(spectrum: Tensor) -> float:
    """Mean of the squared filter over all frequencies of the full plane."""
    square = 2 * spectrum**2
    square[:, 0] /= 2
    square[:, -1] /= 2
    return float(square.sum()) / (spectrum.shape[0] * 2 * (spectrum.shape[1] - 1))


class Noise:
    """CT noise slice after slice, (rows, columns), of unit sd on pixels up to `REFERENCE`.

    `pixel`: (row, column) spacing, mm. `shared`: correlation of neighbouring slices. `blotch`:
    coarse noise that iterative reconstruction leaves, 0 none, 5 much.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel: tuple[float, float],
        grain_mm: float,
        shared: float,
        dice: Dice,
        blotch: float = 0.0,
    ) -> None:
        self.shape, self.shared, self.dice = shape, shared, dice
        self.size = (fast_size(shape[0]), fast_size(shape[1]))
        kernel = _filter(*self.size, pixel, grain_mm, blotch)
        usual = _filter(256, 256, (REFERENCE, REFERENCE), grain_mm, blotch)
        whole = _power(usual) / REFERENCE**2
        share = min(1.0, _power(kernel) / (pixel[0] * pixel[1]) / whole)
        scale = math.sqrt(share / _power(kernel) * self.size[0] * self.size[1] / 2)
        self.filter = (kernel * scale).to(dice.device)
        self.last = torch.zeros(0)

    def __call__(self, slices: int) -> Tensor:
        """The next slices: (slices, rows, columns)."""
        white = self.dice.randn((slices, *self.filter.shape, 2))
        # the transform of white noise is white: one transform is saved
        spectrum = torch.view_as_complex(white) * self.filter
        spectrum[:, :, 0] *= math.sqrt(2)  # only the half that is symmetric survives
        spectrum[:, :, -1] *= math.sqrt(2)
        plane: Tensor = torch.fft.irfft2(spectrum, s=self.size)
        noise = plane[:, : self.shape[0], : self.shape[1]]
        own = math.sqrt(1 - self.shared**2)
        for k in range(slices):
            last = noise[k - 1] if k else self.last
            if len(last):
                noise[k].mul_(own).add_(last, alpha=self.shared)
        self.last = noise[-1].clone()
        return noise


def shared_noise(step_mm: float, thickness_mm: float) -> float:
    """Correlation of the noise of neighbouring slices: those that overlap share part of it."""
    return 0.1 + 0.8 * max(0.0, 1 - step_mm / thickness_mm)


def dose(hu: Tensor, grid: Grid, thickness_mm: float) -> tuple[float, Tensor, Tensor]:
    """How loud noise is: overall, by slice (Z,) and by place (X, Y), the latter two about 1.

    Larger patients, wider slices and thinner ones get fewer photons; the middle of the body fewer
    than its surface, and the air around it is calm.
    """
    body = hu > -500
    pixel = grid.spacing[0] * grid.spacing[1]
    area = body.sum((0, 1)).float() * pixel  # mm2 of patient a slice
    mean = float(area.mean())
    size = math.sqrt(max(mean, 2e4) / 7e4)
    thin = min(max(math.sqrt(2.5 / thickness_mm), 0.75), 1.5)
    # tube current modulation takes back most of the difference between slices
    by_slice = (area / max(mean, 1.0)).clamp(0.4, 2.0) ** 0.35
    shadow = body.float().mean(2)[:, :, None]
    by_place = 0.55 + 0.6 * blur(shadow, grid.spacing, (45.0, 45.0, 0.0))[:, :, 0]
    loud: float = size * thin
    return loud, by_slice, by_place
