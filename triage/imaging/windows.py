"""The HU windows that people look through; known without torch, for pages that name them."""

from __future__ import annotations

from typing import NamedTuple

from triage.types import Target


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
