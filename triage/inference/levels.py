"""Vertebral levels of a scan: one spine laid through what the single slices say.

Organs lie one or two vertebrae higher or lower from person to person and breath to breath, bones
do not. So a usual spine, longer or shorter, is placed where all slices together make it likeliest.
The slices of the abdomen may all be off by the same part of a vertebra (`SHIFTS`); those of the
pelvis, whose bones tell the level, may not, and count more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triage.imaging.coarse import COARSE_MM
from triage.nets.quality_nets import LEVELS

# Height of a vertebra with its disc, mm, from C7-T1 down to L5-S1; below, the unit of the scale.
# A usual adult's, rounded; `SIZES` takes up what differs.
GAPS = (*(21,) * 5, *(22, 22, 23, 24, 25, 26, 27, 29, 31, 33), *(34,) * 10)
S1 = 18
SIZES = np.linspace(0.82, 1.18, 13)  # long and short spines
SIZE, SIZE_SD = 0.97, 0.05  # of the label maps at hand
TOGETHER = 10  # neighbouring slices err together: so many count as one
STEP_MM = 3.0
DOUBT = 0.05  # a slice may be wrong altogether
PELVIS_WEIGHT = 3.0
SHIFTS = np.arange(-1.5, 1.51, 0.5)  # organs against the spine, levels
SHIFT_SD = 0.7
FINE = np.arange(0, LEVELS - 0.5, 0.5)  # levels that are looked up


def fitted_levels(p: NDArray[np.float64], pelvis: NDArray[np.float64]) -> NDArray[np.float32]:
    """Levels (Z,) from the feet up, of slices with level probabilities `p` (Z, 25).

    `pelvis` (Z,): probability that a slice shows the pelvis.
    """
    below_s1 = np.concatenate([[0.0], np.cumsum(GAPS)])[:LEVELS]  # mm below C7
    below_s1 -= below_s1[S1]
    z = (np.arange(len(p)) + 0.5) * COARSE_MM[2]
    surely = np.log(p + DOUBT) * (1 + PELVIS_WEIGHT * pelvis)[:, None]  # (Z, 25)
    # what the slices say where the organs lie `shift` levels too low or too high: (S, Z, 25)
    worth = np.stack([_shifted(surely, shift * (1 - pelvis)) for shift in SHIFTS])
    together = len(p) / TOGETHER
    unusual = 0.5 * (SHIFTS / SHIFT_SD) ** 2 * together  # (S,)
    rows = np.arange(len(p))
    best: tuple[float, NDArray[np.float64]] | None = None
    for size in SIZES:
        spine = below_s1 * size
        # heights of S1 above the lowest slice that leave the scan somewhere on the scale
        s1 = np.arange(-spine[-1], z[-1] - spine[0] + STEP_MM, STEP_MM)  # (O,)
        level = np.interp(s1[:, None] - z, spine, np.arange(LEVELS))  # (O, Z)
        nearest = (2 * level).round().astype(int)
        total = worth[:, rows, nearest].sum(2) - unusual[:, None]  # (S, O)
        total = total.max(0) - 0.5 * ((size - SIZE) / SIZE_SD) ** 2 * together  # (O,)
        k = int(total.argmax())
        if best is None or total[k] > best[0]:
            best = float(total[k]), level[k]
    if best is None:
        return np.zeros(0, np.float32)
    return np.asarray(best[1], np.float32)


def _shifted(worth: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Z, 25) read `by` (Z,) levels farther at the levels `FINE`: (Z, 49), linearly."""
    at = np.clip(FINE + by[:, None], 0, LEVELS - 1)  # (Z, 49)
    low = np.minimum(at.astype(int), LEVELS - 2)
    part, rows = at - low, np.arange(len(worth))[:, None]
    return np.asarray((1 - part) * worth[rows, low] + part * worth[rows, low + 1])
