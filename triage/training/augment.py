"""Augmentation of slices, seeded: MONAI's transforms for grey values and dropout.

Shift, zoom and turn are part of the cut itself (`inference.crops.cut`): the picture is then
interpolated once, as in inference, and not a second time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.transforms import (
    Compose,
    RandCoarseDropout,
    RandGaussianNoise,
    RandGaussianSharpen,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)
from torch import Tensor

GAIN, SHIFT_HU, NOISE_HU = 0.08, 10.0, 12.0  # other scanners, phases and doses
BLUR_PIXELS = (0.3, 0.9)  # of 1.5 mm
HOLES, SMALLEST, LARGEST = 3, 0.05, 0.22  # coarse dropout: sides as shares of the picture
SHIFT_MM, TURN, ZOOM = 8.0, 0.12, (0.85, 1.18)
SINGLE = 0.15  # share of pictures without neighbours: single slices must work too
_OWN = threading.local()  # the transforms carry state; pictures are made in threads


@dataclass(frozen=True)
class Pose:
    """How a cut is moved: mm, factor, radians."""

    shift_mm: tuple[float, float]
    zoom: float
    turn: float


def pose(rng: np.random.Generator) -> Pose:
    """Where the localiser might have put the crop."""
    x, y = rng.normal(0, SHIFT_MM, 2)
    return Pose((float(x), float(y)), float(rng.uniform(*ZOOM)), float(rng.normal(0, TURN)))


def grey_values(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """Other gain, offset and noise; HU of any shape."""
    if not hasattr(_OWN, "grey"):
        _OWN.grey = Compose(
            [
                RandScaleIntensity(factors=GAIN, prob=1.0),
                RandShiftIntensity(offsets=SHIFT_HU, prob=1.0),
                RandGaussianNoise(prob=0.5, std=NOISE_HU),
            ]
        )
    return _apply(_OWN.grey, hu, rng)


def sharpness(planes: Tensor, rng: np.random.Generator) -> Tensor:
    """Other kernels and matrices: slices (X, Y, 3), now and then smoothed or sharpened."""
    if not hasattr(_OWN, "kernels"):
        sides: dict[str, Any] = {f"sigma_{axis}": BLUR_PIXELS for axis in "xy"}
        wide = {f"sigma1_{axis}": (1.0, 1.5) for axis in "xy"}
        fine = {f"sigma2_{axis}": 0.5 for axis in "xy"}
        _OWN.kernels = Compose(
            [
                RandGaussianSmooth(prob=0.3, **sides),
                RandGaussianSharpen(prob=0.15, alpha=(0.5, 2.0), **wide, **fine),
            ]
        )
    return _apply(_OWN.kernels, planes.permute(2, 0, 1), rng).permute(1, 2, 0)


def coarse_dropout(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Up to three boxes of noise in a picture (3, S, S) of [-1, 1]."""
    key = f"holes{x.shape[-1]}"
    if not hasattr(_OWN, key):
        low, high = (max(1, round(share * x.shape[-1])) for share in (SMALLEST, LARGEST))
        holes = RandCoarseDropout(
            holes=1,
            max_holes=HOLES,
            spatial_size=(low, low),
            max_spatial_size=(high, high),
            fill_value=(-1.0, 1.0),
            prob=0.75,
        )
        setattr(_OWN, key, Compose([holes]))
    return _apply(getattr(_OWN, key), x, rng)


def _apply(transform: Compose, x: Tensor, rng: np.random.Generator) -> Tensor:
    transform.set_random_state(seed=int(rng.integers(2**31)))
    out = transform(x)
    plain: Tensor = out.as_tensor() if hasattr(out, "as_tensor") else out
    return plain
