"""How the patient lies and which part of the body is shown, from the voxels alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from triage.imaging.coarse import COARSE_MM, coarse, cube, small_slices
from triage.imaging.turns import IDENTITY, LEFT_RIGHT, TURNS, Turn
from triage.inference.levels import fitted_levels
from triage.nets.quality_bundle import QualityNetworks
from triage.nets.quality_nets import REGIONS, level_name

AT_ONCE = 16  # cubes
WINDOW_MM = 42.0  # so much abdomen in one piece makes a scan one of the abdomen
ABDOMEN, PELVIS = REGIONS.index("abdomen"), REGIONS.index("pelvis")


@dataclass(frozen=True)
class Orientation:
    """`turn`: how the scan is to be turned so that it is as its header says, RAS+.

    `probability`: of that turn among all 48. `log_odds[code]`: log of the probability of a turn
    over that of none, by the code of the axes; "RAS" is 0.
    """

    turn: Turn
    probability: float
    log_odds: dict[str, float]
    features: Tensor = field(repr=False)  # (D,), of the likeliest turn

    @property
    def as_said(self) -> bool:
        return self.turn == IDENTITY

    @property
    def mirrored_log_odds(self) -> float:
        """Log odds of left and right exchanged against as the header says."""
        return self.log_odds[LEFT_RIGHT.code]


@dataclass(frozen=True)
class Coverage:
    """What part of the body the slices show, from the feet up.

    `regions` (Z, 5): probabilities of `REGIONS`; `levels` (Z,): vertebral level (see
    `quality_nets`), falling towards the head; `abdomen`: 0 to 1, the mean probability in the 42 mm
    that look most like an abdomen.
    """

    regions: NDArray[np.float32]
    levels: NDArray[np.float32]
    abdomen: float

    @property
    def region_mm(self) -> dict[str, float]:
        """Extent of each region, mm."""
        share = self.regions.sum(0) * COARSE_MM[2]
        return {name: round(float(mm), 1) for name, mm in zip(REGIONS, share, strict=True)}

    @property
    def main(self) -> str:
        """The region that takes most of the scan."""
        return REGIONS[int(self.regions.sum(0).argmax())]

    @property
    def top(self) -> float:
        return float(self.levels[-1])

    @property
    def bottom(self) -> float:
        return float(self.levels[0])

    @property
    def names(self) -> tuple[str, str]:
        """Levels of the uppermost and the lowest slice."""
        return level_name(self.top), level_name(self.bottom)


@torch.no_grad()
def orientation(nets: QualityNetworks, hu: Tensor) -> Orientation:
    """Which of the 48 turns makes the coarse scan (x, y, z) look like a patient in RAS+."""
    x = cube(hu).to(nets.device)
    scores, features = [], []
    for i in range(0, len(TURNS), AT_ONCE):
        found = nets.orientation.features(torch.stack([t.apply(x) for t in TURNS[i : i + AT_ONCE]]))
        features.append(found.cpu())
        scores.append(nets.orientation.head(found)[:, 0].cpu())
    score = torch.cat(scores)  # (48,)
    best = int(score.argmax())
    odds = {t.code: round(float(s - score[0]), 3) for t, s in zip(TURNS, score, strict=True)}
    p = float(score.softmax(0)[best])
    return Orientation(TURNS[best], p, odds, torch.cat(features)[best])


@torch.no_grad()
def coverage(nets: QualityNetworks, hu: Tensor) -> Coverage:
    """Regions and levels of a coarse scan (x, y, z) that lies as it should."""
    regions, levels = slice_regions(nets, small_slices(hu))
    p = regions.softmax(1)
    fitted = fitted_levels(levels.softmax(1).double().numpy(), p[:, PELVIS].double().numpy())
    window = min(len(p), round(WINDOW_MM / COARSE_MM[2]))
    runs = F.avg_pool1d(p[:, ABDOMEN][None, None], window, 1)[0, 0]
    return Coverage(p.numpy(), fitted, float(runs.max()))


@torch.no_grad()
def slice_regions(nets: QualityNetworks, slices: Tensor) -> tuple[Tensor, Tensor]:
    """Small slices (B, 1, 96, 96) -> logits of regions (B, 5) and levels (B, 25), on the CPU."""
    parts = [nets.region(part.to(nets.device)) for part in slices.split(64)]
    return torch.cat([r.cpu() for r, _ in parts]), torch.cat([v.cpu() for _, v in parts])


def turned(hu: Tensor, turn: Turn) -> Tensor:
    """A coarse scan turned, its voxels again `COARSE_MM`."""
    if turn == IDENTITY:
        return hu
    out = turn.apply(hu)
    size = [
        max(1, round(n * COARSE_MM[a] / COARSE_MM[d]))
        for d, (n, a) in enumerate(zip(out.shape, turn.axes, strict=True))
    ]
    return F.interpolate(out[None, None], size, mode="trilinear", align_corners=False)[0, 0]


def distance(nets: QualityNetworks, features: Tensor) -> float:
    """Mahalanobis distance of a scan's features from the training set's, in units of its root mean
    square there (1 is usual). After Lee et al., NeurIPS 2018."""
    away = (features - nets.centre) @ nets.whiten  # (K,)
    return float(away.square().mean().sqrt())


def look(nets: QualityNetworks, grid: Tensor) -> tuple[Orientation, Coverage, float]:
    """Orientation, coverage (turned as it should be) and distance of a scan on the working grid."""
    hu = coarse(grid)
    found = orientation(nets, hu)
    return found, coverage(nets, turned(hu, found.turn)), distance(nets, found.features)
