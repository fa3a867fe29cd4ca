"""Artefacts seen in the voxels alone: noise power, metal, steps between slices, truncation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from triage.imaging.measure import SOFT_TISSUE
from triage.types import Volume

METAL_HU = 2500.0  # no bone reaches it; dental enamel does, in no abdomen
BODY_HU = -300.0
REGION_PIXELS = 24  # side of a region for the noise power spectrum
DEPTH_MM, DEPTH = 16.0, 8  # of such a region: mm, and slices at most
INSIDE = 0.9  # of a region soft tissue: noise leaves the range now and then
REGIONS_USED = 12  # the most uniform ones
PADDING_HU = -1023.5  # what was not reconstructed is -1024 (see `volume`)
BORDER_MM = 60.0  # body along the edge of the field of view that counts as cut


def artefacts(volume: Volume) -> dict[str, float | None]:
    """Figures for the report; None where they cannot be taken.

    noise_power_sd_hu : noise from the integral of the 3D noise power spectrum, HU
    noise_power_peak_per_mm, noise_power_mean_per_mm : frequency in plane, 1/mm
    noise_power_mean_z_per_mm : mean frequency across the slices, 1/mm
    metal_ml : volume above 2500 HU
    step : largest difference of neighbouring slices over the usual one there (motion, slabs)
    truncated_fraction : part of the slices whose body reaches the edge of the field of view
    """
    hu = volume.hu.as_tensor()[0]
    x, y, z = volume.spacing
    every = max(1, round(3.0 / x))
    small = hu[::every, ::every].contiguous()  # sampled, about 3 mm
    return {
        **noise_power(hu, volume.spacing),
        "metal_ml": round(float((small > METAL_HU).sum()) * every**2 * x * y * z / 1000, 2),
        "step": _step(small),
        "truncated_fraction": _truncated(small, every * x),
    }


def noise_power(hu: Tensor, spacing: tuple[float, float, float]) -> dict[str, float | None]:
    """3D noise power spectrum of uniform soft tissue (X, Y, Z), HU.

    NPS(f) = dx dy dz / (Nx Ny Nz) <|DFT(region - trend)|^2> (ICRU report 87, 2012, chapter 4), over
    the twelve most uniform regions of 24 x 24 pixels and up to 8 slices; the trend is a plane. The
    volume under it is the variance.
    """
    names = ("noise_power_sd_hu", "noise_power_peak_per_mm", "noise_power_mean_per_mm")
    none: dict[str, float | None] = dict.fromkeys((*names, "noise_power_mean_z_per_mm"))
    depth = max(1, min(DEPTH, round(DEPTH_MM / spacing[2]), hu.shape[2]))
    regions = _uniform_regions(hu, depth)
    if regions is None:
        return none
    side = regions.shape[1]
    power = torch.fft.fftn(_detrended(regions), dim=(1, 2, 3)).abs().square().mean(0)
    cell = spacing[0] * spacing[1] * spacing[2]
    spectrum = power * cell / (side * side * depth)  # HU^2 mm^3
    fx = torch.fft.fftfreq(side, spacing[0])[:, None, None]
    fy = torch.fft.fftfreq(side, spacing[1])[None, :, None]
    fz = torch.fft.fftfreq(depth, spacing[2]).abs()[None, None, :]
    radial = (fx.square() + fy.square()).sqrt()
    total = spectrum.sum().clamp_min(1e-9)
    variance = float(total) / (cell * side * side * depth)
    bins = (radial * side * spacing[0]).round().long().flatten()
    plane = spectrum.sum(2).flatten()
    count = torch.zeros(int(bins.max()) + 1).index_add_(0, bins, torch.ones_like(plane))
    profile = torch.zeros_like(count).index_add_(0, bins, plane) / count.clamp_min(1)
    peak = int(profile[1:].argmax()) + 1  # not the trend
    across = round(float((spectrum * fz).sum() / total), 4) if depth > 3 else None
    return {
        "noise_power_sd_hu": round(variance**0.5, 2),
        "noise_power_peak_per_mm": round(peak / (side * spacing[0]), 4),
        "noise_power_mean_per_mm": round(float((spectrum * radial).sum() / total), 4),
        "noise_power_mean_z_per_mm": across,
    }


def _uniform_regions(hu: Tensor, depth: int) -> Tensor | None:
    """The most uniform blocks of soft tissue: (n, 24, 24, depth), or None where there are none."""
    side = REGION_PIXELS
    if min(hu.shape[:2]) < side:
        return None
    blocks: list[tuple[float, Tensor]] = []
    for z in torch.linspace(0, hu.shape[2] - depth, 10).round().long().unique().tolist():
        slab = hu[:, :, z + depth // 2][None, None].clamp(-200, 400)
        inside = ((slab > SOFT_TISSUE[0]) & (slab < SOFT_TISSUE[1])).float()
        mean = F.avg_pool2d(slab, side, 8)
        spread = (F.avg_pool2d(slab.square(), side, 8) - mean.square()).clamp_min(0).sqrt()
        spread[F.avg_pool2d(inside, side, 8) < INSIDE] = torch.inf
        values, places = spread[0, 0].flatten().topk(min(6, spread.numel()), largest=False)
        for value, place in zip(values, places, strict=True):
            if torch.isfinite(value):
                i, j = (8 * int(n) for n in divmod(int(place), spread.shape[3]))
                block = hu[i : i + side, j : j + side, z : z + depth].float()
                within = (block > SOFT_TISSUE[0]) & (block < SOFT_TISSUE[1])
                if float(within.float().mean()) > INSIDE:
                    blocks.append((float(block.std()), block))
    if len(blocks) < 3:
        return None
    best = sorted(blocks, key=lambda b: b[0])[:REGIONS_USED]
    return torch.stack([block for _, block in best])


def _detrended(regions: Tensor) -> Tensor:
    """(n, X, Y, Z) less the plane a + bx + cy + dz fitted to each."""
    _, x, y, z = regions.shape
    axes = [torch.linspace(-1, 1, m) if m > 1 else torch.zeros(1) for m in (x, y, z)]
    grid = torch.meshgrid(*axes, indexing="ij")
    out = regions - regions.mean((1, 2, 3), keepdim=True)
    for g in grid:  # the axes are orthogonal to each other and to the constant
        size = g.square().sum()
        if size > 0:
            out = out - (out * g).sum((1, 2, 3), keepdim=True) / size * g
    return out


def _step(small: Tensor) -> float | None:
    """How much the worst pair of neighbouring slices differs more than the pairs around it."""
    if small.shape[2] < 12:
        return None
    values = small.clamp(-200, 200)
    change = (values[:, :, 1:] - values[:, :, :-1]).abs().mean((0, 1))  # (Z - 1,)
    padded = F.pad(change[None, None], (4, 4), mode="replicate")[0, 0]
    usual = padded.unfold(0, 9, 1).median(1).values.clamp_min(1.0)
    inner = (change / usual)[1:-1]
    return round(float(inner.max()), 2)


def _truncated(small: Tensor, pixel_mm: float) -> float:
    """Part of the slices in which the body lies along the field of view's edge for 60 mm or more.

    The edge is that of the picture, or the circle beyond which every slice is padding.
    """
    body = small > BODY_HU
    nx, ny = small.shape[:2]
    x = torch.arange(nx)[:, None] - (nx - 1) / 2
    y = torch.arange(ny)[None, :] - (ny - 1) / 2
    radius = (x * x + y * y).sqrt()
    seen = (small > PADDING_HU).any(2)
    edge = torch.zeros_like(seen)
    edge[[0, -1]] = True
    edge[:, [0, -1]] = True
    if bool(seen.any()):
        edge |= radius > radius[seen].max() - 1.0
    length = (body & edge[:, :, None]).float().sum((0, 1)) * pixel_mm  # (Z,)
    shown = body.float().sum((0, 1)) * pixel_mm**2 > 5000
    if not bool(shown.any()):
        return 0.0
    return round(float((length[shown] > BORDER_MM).float().mean()), 3)
