"""Do the labels of a background belong to its image? What is refused, and why."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.fields import member
from triage.simulate.tissues import Tissue

SOLID = (Tissue.LIVER, Tissue.SPLEEN, Tissue.CORTEX_RIGHT, Tissue.CORTEX_LEFT)


class BackgroundError(ValueError):
    """A background that cannot be used: says what was expected, what came and what to do."""


def apart(one: NDArray[np.float64], two: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Largest distance in mm between the corners of a volume under two affines."""
    ends = np.array([[*ijk, 1] for ijk in product(*((0, n - 1) for n in shape))], dtype=float)
    return float(np.linalg.norm(ends @ (one - two).T, axis=1).max())


def check_fit(tissues: Tensor, hu: Tensor, name: str) -> None:
    """Raise BackgroundError where the labelled organs are not made of soft tissue."""
    inside = hu[member(tissues, SOLID)]
    middle = float(inside[:: max(1, len(inside) // 100_000)].median())
    if not -20 < middle < 350:
        raise BackgroundError(
            f"Labels and CT do not fit: where {name} has liver, spleen and kidneys, the CT has a "
            f"median of {middle:.0f} HU; expected -20 to 350. Check that the labels belong to this "
            "series and that neither is flipped."
        )


# Side of the body's middle on which the centre of an organ lies; RAS+: right is positive.
SIDES: dict[Tissue, tuple[str, int]] = {
    Tissue.SPLEEN: ("spleen", -1),
    Tissue.CORTEX_LEFT: ("left kidney", -1),
    Tissue.CORTEX_RIGHT: ("right kidney", 1),
    Tissue.LIVER: ("liver", 1),
}


def check_sides(tissues: Tensor, body: Tensor, name: str) -> None:
    """Raise BackgroundError where an organ lies on the other side of the body: flipped labels, or
    ids that mean something else."""
    across = body.sum((1, 2)).double()
    x = torch.arange(len(across), dtype=torch.float64)
    middle = float((across * x).sum() / across.sum())
    for tissue, (organ, side) in SIDES.items():
        own = (tissues == int(tissue)).sum((1, 2)).double()
        if own.sum() and side * (float((own * x).sum() / own.sum()) - middle) < 0:
            raise BackgroundError(
                f"The {organ} of {name} lies on the patient's {'left' if side > 0 else 'right'}: "
                "the labels are flipped, or their ids mean something else. Check the affine, or "
                "name the ids with --label-names."
            )
