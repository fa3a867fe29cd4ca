"""Coarse pictures of a scan for the quality networks: a cube around the body, and small slices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COARSE_MM = (4.5, 4.5, 6.0)  # working grid (1.5, 1.5, 3) averaged by 3 x 3 x 2
FACTORS = (3, 3, 2)
CUBE_MM, CUBE = 9.0, 44  # 396 mm: the trunk of a stout adult
SIDE = 96  # pixels of a small slice, 432 mm
AIR = -1000.0
BODY_HU = -300.0


def coarse(grid: Tensor) -> Tensor:
    """Working grid (1, X, Y, Z) HU -> (x, y, z) HU, float32, voxels of `COARSE_MM`."""
    whole = [max(1, n // f) * f for n, f in zip(grid.shape[1:], FACTORS, strict=True)]
    hu = torch.as_tensor(grid)[:, : whole[0], : whole[1], : whole[2]]
    factors = [min(f, n) for f, n in zip(FACTORS, hu.shape[1:], strict=True)]
    return F.avg_pool3d(hu[None].float().clamp(-1024, 1500), factors)[0, 0]


def cube(hu: Tensor, spacing: tuple[float, float, float] = COARSE_MM) -> Tensor:
    """(x, y, z) HU -> (3, 44, 44, 44): soft tissue, bone, air of 9 mm voxels around the body.

    The middle is the body's centroid, axis by axis, so that the cube of a turned volume is the
    turned cube. What was not scanned is air.
    """
    size = [max(2, round(n * s / CUBE_MM)) for n, s in zip(hu.shape, spacing, strict=True)]
    small = F.interpolate(hu[None, None], size, mode="trilinear", align_corners=False)[0, 0]
    return channels(centred(small, CUBE))


def centred(hu: Tensor, side: int) -> Tensor:
    """(x, y, ...) HU cut or filled with air to `side` along each axis, around the body."""
    body = (hu > BODY_HU).float()
    out = torch.full((side,) * hu.ndim, AIR)
    into, taken = [], []
    for axis, n in enumerate(hu.shape):
        line = body.sum([d for d in range(hu.ndim) if d != axis])
        middle = float((line * torch.arange(n)).sum() / line.sum()) if line.sum() else (n - 1) / 2
        low = round(middle + 0.5 - side / 2)
        start, stop = max(low, 0), min(low + side, n)
        taken.append(slice(start, stop))
        into.append(slice(start - low, stop - low))
    out[tuple(into)] = hu[tuple(taken)]
    return out


def channels(hu: Tensor) -> Tensor:
    """HU (...) -> (3, ...): soft tissue and bone in [-1, 1], air 0 or 1."""
    soft = (hu.clamp(-160, 240) - 40) / 200
    bone = (hu.clamp(200, 900) - 200) / 350
    return torch.stack([soft, bone, (hu < -500).float()])


def small_slices(hu: Tensor) -> Tensor:
    """(x, y, z) HU of 4.5 mm pixels -> (z, 1, 96, 96) in [-1, 1], window -160 to 240 HU.

    The whole scan is centred once, on the body's centroid in plane.
    """
    x, y, z = hu.shape
    body = (hu > BODY_HU).float()
    out = torch.full((z, SIDE, SIDE), AIR)
    into, taken = [], []
    for line, n in ((body.sum((1, 2)), x), (body.sum((0, 2)), y)):
        middle = float((line * torch.arange(n)).sum() / line.sum()) if line.sum() else (n - 1) / 2
        low = round(middle + 0.5 - SIDE / 2)
        start, stop = max(low, 0), min(low + SIDE, n)
        taken.append(slice(start, stop))
        into.append(slice(start - low, stop - low))
    out[:, into[0], into[1]] = hu[taken[0], taken[1]].permute(2, 0, 1)
    return windowed(out)[:, None]


def windowed(hu: Tensor) -> Tensor:
    """HU -> [-1, 1], soft tissue."""
    return (hu.clamp(-160, 240) - 40) / 200


def picture(grey: Tensor) -> Tensor:
    """A slice that is only a picture (H, W), 0 to 255, patient's right on the left of the
    picture -> (1, 1, 96, 96) in [-1, 1], axes as in `small_slices` (x to the patient's right,
    y to the front). Its scale is unknown: the whole picture is taken for 432 mm.
    """
    small = F.interpolate(grey[None, None].float(), (SIDE, SIDE), mode="area")[0, 0]
    return (small.T.flip((0, 1)) / 127.5 - 1)[None, None]
