"""Fixed HU windows. An image is never scaled by its own minimum and maximum: HU have a meaning."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from monai.transforms import ScaleIntensityRange

from triage.types import Target

TensorT = TypeVar("TensorT", bound=torch.Tensor)


class Window(NamedTuple):
    """Displayed range in HU: `low` is black, `high` white."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def level(self) -> float:
        return (self.high + self.low) / 2


# Width and level as radiologists write them stand in the comments.
WINDOWS: dict[str, Window] = {
    # W 400 L 40, the usual abdominal preset.
    "soft_tissue": Window(-160.0, 240.0),
    # W 320 L 50: narrower, around enhanced parenchyma (liver 100-120, spleen 110-140 HU in the
    # portal venous phase), so that lacerations (20-60 HU) keep their contrast, while fat (-100 HU)
    # still differs from gas. Our choice.
    "organ": Window(-110.0, 210.0),
    # W 360 L 70: the enhanced kidney (180-220 HU) would be white in `organ`. Our choice.
    "kidney": Window(-110.0, 250.0),
    # W 500 L 150: contrast medium outside vessels (up to about 400 HU) apart from tissue. Our
    # choice; angiography presets (W 600 L 200 and wider) lose the parenchyma around it.
    "vessel": Window(-100.0, 400.0),
    # W 1800 L 400 and W 1500 L -600, the usual presets.
    "bone": Window(-500.0, 1300.0),
    "lung": Window(-1350.0, 150.0),
}

# The window in which a person looks at a target.
TARGET_WINDOW: dict[Target, str] = {
    Target.BOWEL: "soft_tissue",  # stranding of the mesenteric fat needs the low end
    Target.EXTRAVASATION: "vessel",
    Target.KIDNEY: "kidney",
    Target.LIVER: "organ",
    Target.SPLEEN: "organ",
}


def window(hu: TensorT, low: float, high: float) -> TensorT:
    """Map HU linearly so that `low` is 0 and `high` is 1, clipped; any shape, float32 out.

    Raises ValueError if `low` is not below `high`.
    """
    if not low < high:
        raise ValueError(f"Expected low < high, got {low} and {high}")
    scale = ScaleIntensityRange(a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)
    scaled: TensorT = scale(hu)
    return scaled
