"""HU through a window. No image is scaled by its own minimum and maximum: HU have a meaning."""

from __future__ import annotations

from typing import TypeVar

import torch
from monai.transforms import ScaleIntensityRange

TensorT = TypeVar("TensorT", bound=torch.Tensor)


def window(hu: TensorT, low: float, high: float) -> TensorT:
    """Map HU linearly so that `low` is 0 and `high` is 1, clipped; any shape, float32 out.

    Raises ValueError if `low` is not below `high`.
    """
    if not low < high:
        raise ValueError(f"Expected low < high, got {low} and {high}")
    scale = ScaleIntensityRange(a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)
    scaled: TensorT = scale(hu)
    return scaled
