"""Simple measures of image quality, from the voxels alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from triage.types import Volume

SOFT_TISSUE = (0.0, 170.0)  # HU; range of Christianson et al. 2015, see `noise`
FAT = (-150.0, -50.0)  # HU
REGION_MM = 6.0  # side of the region a local standard deviation is taken over
SAMPLED_SLICES = 12  # spread over the scan: enough for a histogram
NOISE_BIN = 0.5  # HU
MAX_NOISE = 150.0  # HU


def measure(volume: Volume) -> dict[str, float | bool | None]:
    """Quality of one volume, for the report.

    Returns
    -------
    dict with
        noise_hu : standard deviation in uniform soft tissue (None where there is no such tissue),
        soft_tissue_fraction, fat_fraction : parts of the body's voxels (> -300 HU),
        saturated_fraction : part of the body's voxels at 3071 HU or more (metal),
        min_hu, max_hu : extremes of the sampled slices,
        plausible : whether the HU are those of a body (see `_is_plausible`).
    """
    depth = int(volume.hu.shape[-1])
    picked = torch.linspace(0, depth - 1, min(depth, SAMPLED_SLICES)).round().long()
    # (slices, 1, X, Y), contiguous
    hu = volume.hu.as_tensor()[0].index_select(2, picked.to(volume.hu.device))
    hu = hu.permute(2, 0, 1)[:, None].contiguous()
    body = hu[hu > -300.0]
    air = float((hu < -900.0).float().mean())
    soft = _fraction(body, *SOFT_TISSUE)
    fat = _fraction(body, *FAT)
    return {
        "noise_hu": noise(hu, volume.spacing[0]),
        "soft_tissue_fraction": round(soft, 4),
        "fat_fraction": round(fat, 4),
        "saturated_fraction": round(_fraction(body, 3071.0, float("inf")), 6),
        "min_hu": float(hu.min()),
        "max_hu": float(hu.max()),
        "plausible": _is_plausible(air, soft, fat),
    }


def noise(hu: torch.Tensor, pixel_mm: float) -> float | None:
    """Global noise level: the mode of local standard deviations in soft tissue, in HU.

    After Christianson et al., "Automated technique to measure noise in clinical CT examinations",
    AJR 2015;205:W93-W99. Regions that hold anything but soft tissue do not count.

    Parameters
    ----------
    hu : (slices, 1, X, Y) in HU.
    pixel_mm : pixel size in mm.
    """
    side = max(3, round(REGION_MM / pixel_mm))
    inside = ((hu > SOFT_TISSUE[0]) & (hu < SOFT_TISSUE[1])).float()
    values = hu.clamp(-200.0, 400.0)  # keeps the squares small: float32 is enough
    mean = F.avg_pool2d(values, side, stride=3)
    square = F.avg_pool2d(values * values, side, stride=3)
    # A noisy image of soft tissue leaves the range now and then: 9 in 10 voxels are asked for.
    uniform = F.avg_pool2d(inside, side, stride=3) > 0.9
    deviation = (square - mean * mean).clamp(min=0).sqrt()[uniform]
    if deviation.numel() < 100:
        return None
    histogram = torch.histc(deviation, bins=int(MAX_NOISE / NOISE_BIN), min=0.0, max=MAX_NOISE)
    smooth = F.avg_pool1d(histogram[None, None], 5, stride=1, padding=2)[0, 0]
    return (int(smooth.argmax()) + 0.5) * NOISE_BIN


def _fraction(values: torch.Tensor, low: float, high: float) -> float:
    if values.numel() == 0:
        return 0.0
    return float(((values >= low) & (values <= high)).float().mean())


def _is_plausible(air: float, soft: float, fat: float) -> bool:
    """Air outside or inside the body, and most of the body soft tissue or fat.

    Wrong rescale values shift the histogram: stored values read as HU (+1024) leave neither fat nor
    air, HU read as stored values leave no tissue.
    """
    return air > 0.005 and soft > 0.15 and soft + fat > 0.4
