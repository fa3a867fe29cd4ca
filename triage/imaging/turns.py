"""The 48 ways an axis-aligned volume can lie: 6 orders of the axes times 8 flips.

A turn is the signed permutation group of the cube (order 48, mirrors included: half of the turns
have determinant -1 and no patient can be laid so; only a wrong header can).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

from torch import Tensor


@dataclass(frozen=True)
class Turn:
    """`axes[d]`: which axis of the input becomes axis d; `flips[d]`: whether axis d is reversed."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, volume: Tensor) -> Tensor:
        """Turn the last three axes of a tensor (..., X, Y, Z): a view where nothing is flipped."""
        first = volume.ndim - 3
        turned = volume.permute(*range(first), *(first + a for a in self.axes))
        flipped = [first + d for d in range(3) if self.flips[d]]
        return turned.flip(flipped) if flipped else turned

    @property
    def inverse(self) -> Turn:
        """The turn that undoes this one."""
        axes, flips = [0, 0, 0], [False, False, False]
        for d, a in enumerate(self.axes):
            axes[a], flips[a] = d, self.flips[d]
        return Turn((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    @property
    def mirrored(self) -> bool:
        """Determinant -1: the patient became the mirror image of himself."""
        swaps = sum(self.axes[i] > self.axes[j] for i in range(3) for j in range(i + 1, 3))
        return bool((swaps + sum(self.flips)) % 2)

    @property
    def code(self) -> str:
        """What the input's axes are, as in NIfTI: "RAS" where nothing is to be turned.

        Applied to a volume whose axes have this code, the turn gives RAS+.
        """
        letters = ("RL", "AP", "SI")
        name = ["", "", ""]
        for d, a in enumerate(self.axes):
            name[a] = letters[d][int(self.flips[d])]
        return "".join(name)


TURNS: tuple[Turn, ...] = tuple(
    Turn((a[0], a[1], a[2]), (bool(f[0]), bool(f[1]), bool(f[2])))
    for a in permutations(range(3))
    for f in product((False, True), repeat=3)
)
IDENTITY = TURNS[0]
LEFT_RIGHT = Turn((0, 1, 2), (True, False, False))
FRONT_BACK = Turn((0, 1, 2), (False, True, False))
HEAD_FOOT = Turn((0, 1, 2), (False, False, True))
