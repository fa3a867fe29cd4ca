"""Perceptual hashes: pictures and volumes that look alike have hashes that differ little.

Difference hash (Krawetz 2013): each bit says whether a cell is brighter than the one before it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SIDE = 16  # cells of a picture
VOLUME_SIDE = 10
LEAST_CHANGE = 0.02  # of the range: flat cells get no noise bit
SAME_PICTURE = 0.02  # part of the bits that may differ
SAME_VOLUME = 0.10


def picture_hash(grey: Tensor) -> NDArray[np.uint8]:
    """(H, W) or (96, 96), any range -> packed bits of a 16 x 16 difference hash."""
    small = F.interpolate(grey[None, None].float(), (SIDE, SIDE + 1), mode="area")[0, 0]
    return _bits(small[:, 1:] - small[:, :-1], small)


def volume_hash(cube: Tensor) -> NDArray[np.uint8]:
    """Soft-tissue channel of a body-centred cube (44, 44, 44) -> packed bits, 10^3."""
    n = VOLUME_SIDE
    small = F.interpolate(cube[None, None].float(), (n + 1, n, n), mode="area")[0, 0]
    return _bits(small[1:] - small[:-1], small)


def _bits(step: Tensor, small: Tensor) -> NDArray[np.uint8]:
    span = float(small.max() - small.min()) or 1.0
    return np.packbits((step > LEAST_CHANGE * span).numpy().ravel())


def differ(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Part of the bits that differ; 1 where the lengths do."""
    if one.shape != other.shape:
        return 1.0
    return float(np.unpackbits(one ^ other).mean())


def information(bits: NDArray[np.uint8]) -> float:
    """Part of the bits that are set: almost none of an empty picture."""
    return float(np.unpackbits(bits).mean())


def text(bits: NDArray[np.uint8]) -> str:
    return bits.tobytes().hex()


def parsed(hexadecimal: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(hexadecimal), np.uint8)


def alike(
    hashes: NDArray[np.uint8], limit: float, chunk: int = 512
) -> list[tuple[int, int, float]]:
    """All pairs (i, j, part that differs) below `limit` among packed hashes (N, bytes)."""
    bits = torch.from_numpy(np.unpackbits(hashes, axis=1).astype(np.float32))  # (N, B)
    ones = bits.sum(1)
    found = []
    for i in range(0, len(bits), chunk):
        both = bits[i : i + chunk] @ bits.T
        part = (ones[i : i + chunk, None] + ones[None] - 2 * both) / bits.shape[1]
        for a, b in (part < limit).nonzero().tolist():
            if i + a < b:
                found.append((i + a, b, round(float(part[a, b]), 4)))
    return found
