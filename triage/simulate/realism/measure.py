"""Measures of one CT: attenuation, noise power spectrum, slice correlation, edge sharpness.

All on HU (X, Y, Z), RAS+, spacing in mm, with masks of the organs. Each returns None (or leaves a
row out) where there is too little to measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from triage.simulate.fields import depth_mm
from triage.types import Phase

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

PATCH = 34.0  # mm, side of a patch for the noise power spectrum
FREQUENCIES = np.arange(0.03, 0.72, 0.03)  # edges of the spectrum's bins, per mm
KEEP = 0.4  # share of patches that count: those with the least structure


@dataclass
class Sample:
    """One CT to be measured. `masks`: liver, spleen, kidney, aorta, where they are known."""

    name: str
    phase: Phase
    hu: Image
    spacing: tuple[float, float, float]
    masks: dict[str, Mask]
    simulated: bool


def bounds(mask: Mask, margin: int = 0) -> tuple[slice, slice, slice] | None:
    """Bounding box of a mask with a margin in plane, in voxels; None if it is empty."""
    where = np.argwhere(mask.any(2))
    z = np.flatnonzero(mask.any((0, 1)))
    if not len(where):
        return None
    low = (where.min(0) - margin).clip(0)
    high = where.max(0) + margin + 1
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(int(z[0]), int(z[-1]) + 1)


def core(mask: Mask, spacing: tuple[float, float, float], margin_mm: float) -> Mask:
    """The part of a mask deeper than `margin_mm`, in plane."""
    out = np.zeros_like(mask)
    box = bounds(mask)
    if box is None:
        return out
    tight = torch.from_numpy(np.ascontiguousarray(mask[box]))
    for k in range(tight.shape[2]):
        plane = tight[:, :, k : k + 1]
        if bool(plane.any()):
            deep = depth_mm(plane, (spacing[0], spacing[1], 1e3)) > margin_mm
            out[box][:, :, k] = deep[:, :, 0].numpy()
    return out


def soft_masks(s: Sample) -> dict[str, Mask]:
    """Fat, and muscle of the back, by their attenuation in the smoothed image, away from borders.

    Done alike for real and simulated CT, of which neither need have labels for them.
    """
    step = max(1, round(2.0 / s.spacing[0]))
    hu = s.hu[::step, ::step]
    spacing = (s.spacing[0] * step, s.spacing[1] * step, s.spacing[2])
    calm = gaussian_filter(hu, (2.0 / spacing[0], 2.0 / spacing[1], 0))
    free = np.ones(hu.shape, dtype=bool)
    for mask in s.masks.values():
        free &= ~mask[::step, ::step]
    body = np.argwhere((calm > -300).any((0, 2)))
    back = np.arange(hu.shape[1]) < body[0, 0] + 0.33 * (body[-1, 0] - body[0, 0])
    fat = free & (calm > -140) & (calm < -60)
    muscle = free & (calm > 10) & (calm < 110) & back[None, :, None]
    out = {}
    for name, mask in (("fat", fat), ("muscle", muscle)):
        deep = core(mask, spacing, 5.0)
        out[name] = np.repeat(np.repeat(deep, step, 0), step, 1)[: s.hu.shape[0], : s.hu.shape[1]]
    return {k: _pad(v, s.hu.shape) for k, v in out.items()}


def _pad(mask: Mask, shape: tuple[int, ...]) -> Mask:
    out = np.zeros(shape, dtype=bool)
    out[: mask.shape[0], : mask.shape[1]] = mask
    return out


def attenuation(s: Sample) -> dict[str, dict[str, float]]:
    """Mean HU and sd by structure; organs 5 mm (aorta 3 mm) away from their border."""
    masks = {n: core(m, s.spacing, 3.0 if n == "aorta" else 5.0) for n, m in s.masks.items()}
    masks.update(soft_masks(s))
    out = {}
    for name, mask in masks.items():
        if int(mask.sum()) * float(np.prod(s.spacing)) > 2000:
            values = s.hu[mask]
            out[name] = {"mean": float(values.mean()), "sd": float(values.std())}
    return out


def patches(s: Sample, organ: str = "liver") -> list[tuple[NDArray[np.float64], int]]:
    """Square patches within an organ, plane fitted away, those with least structure first."""
    mask = s.masks.get(organ)
    if mask is None:
        return []
    n = round(PATCH / s.spacing[0])
    if n < 12:
        return []
    u = np.linspace(-1, 1, n)
    a, b = np.meshgrid(u, u, indexing="ij")
    basis = np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], -1).reshape(n * n, 6)
    solve = np.linalg.pinv(basis)
    found = []
    for k in np.flatnonzero(mask.any((0, 1))).tolist():
        plane = np.cumsum(np.cumsum(np.pad(mask[:, :, k], ((1, 0), (1, 0))).astype(int), 0), 1)
        for i in range(0, mask.shape[0] - n, n // 2):
            for j in range(0, mask.shape[1] - n, n // 2):
                inside = plane[i + n, j + n] - plane[i, j + n] - plane[i + n, j] + plane[i, j]
                if inside < n * n:
                    continue
                patch = s.hu[i : i + n, j : j + n, k].astype(np.float64).reshape(-1)
                found.append(((patch - basis @ (solve @ patch)).reshape(n, n), k))
    found.sort(key=lambda item: float(item[0].std()))
    return found[: max(1, round(KEEP * len(found)))] if found else []


def noise_spectrum(s: Sample) -> dict[str, Any] | None:
    """Noise power spectrum in the liver: radial average, area 1; sd; mean and peak frequency.

    Method of AAPM TG-233 in short: detrended patches, windowed, squared, averaged.
    """
    found = patches(s)
    if len(found) < 3:
        return None
    n = len(found[0][0])
    window = np.outer(np.hanning(n), np.hanning(n))
    power = np.mean([np.abs(np.fft.fft2(p * window)) ** 2 for p, _ in found], axis=0)
    f = np.fft.fftfreq(n, s.spacing[0])
    radius = np.hypot(f[:, None], f[None, :])
    line = np.full(len(FREQUENCIES) - 1, np.nan)
    for i, (low, high) in enumerate(pairwise(FREQUENCIES)):
        ring = (radius >= low) & (radius < high)
        if ring.any() and high <= 0.5 / s.spacing[0] + 0.02:
            line[i] = power[ring].mean()
    middle = (FREQUENCIES[:-1] + FREQUENCIES[1:]) / 2
    good = np.isfinite(line)
    line = line / (np.nansum(line) * 0.03)
    return {
        "frequency": middle.tolist(),
        "power": [float(v) if ok else None for v, ok in zip(line, good, strict=True)],
        "sd": float(np.sqrt(np.mean([p.var() for p, _ in found]))),
        "mean_frequency": float(np.nansum(line * middle) / np.nansum(line)),
        "peak_frequency": float(middle[int(np.nanargmax(line))]),
        "patches": len(found),
    }


def spectrum_distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Half the area between two normalised spectra where both are known: 0 alike, 1 disjoint."""
    pairs = [
        (x, y)
        for x, y in zip(a["power"], b["power"], strict=True)
        if x is not None and y is not None
    ]
    p, q = (np.array(v) / sum(v) for v in zip(*pairs, strict=True))
    return float(0.5 * np.abs(p - q).sum())


def slice_correlation(s: Sample) -> float | None:
    """Correlation of the fine grain (below about 4 mm) of neighbouring slices in the liver."""
    mask = s.masks.get("liver")
    if mask is None:
        return None
    box = bounds(mask, 12)
    if box is None:
        return None
    hu, inside = s.hu[box], core(mask[box], s.spacing, 6.0)
    fine = hu - gaussian_filter(hu, (2.0 / s.spacing[0], 2.0 / s.spacing[1], 0))
    both = inside[:, :, 1:] & inside[:, :, :-1]
    a, b = fine[:, :, 1:][both], fine[:, :, :-1][both]
    keep = (np.abs(a) < 3 * a.std()) & (np.abs(b) < 3 * b.std()) if len(a) else np.zeros(0, bool)
    return float(np.corrcoef(a[keep], b[keep])[0, 1]) if keep.sum() > 500 else None


def edge_rise(s: Sample, organ: str, seed: int = 0) -> dict[str, float] | None:
    """10-90 % rise in mm across the border of an organ with fat, in plane: median, quartiles.

    Profiles along the in-plane normal, those that run from calm fat to calm organ alone.
    """
    mask = s.masks.get(organ)
    box = None if mask is None else bounds(mask, 14)
    if mask is None or box is None:
        return None
    hu, part = s.hu[box], mask[box]
    inner = float(np.median(hu[part]))
    smooth = gaussian_filter(part.astype(np.float32), (2 / s.spacing[0], 2 / s.spacing[1], 0))
    gx, gy = np.gradient(smooth, s.spacing[0], s.spacing[1], axis=(0, 1))
    rim = np.argwhere(part & (smooth < 0.62) & (np.hypot(gx, gy) > 0.05))
    if len(rim) < 50:
        return None
    pick = rim[np.random.default_rng(seed).permutation(len(rim))[:3000]]
    at = tuple(pick.T)
    normal = np.stack([gx[at], gy[at]], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    t = np.arange(-8, 8.01, 0.25)  # mm, inwards
    points = [
        pick[:, d, None] + (normal[:, d, None] * t / s.spacing[d] if d < 2 else 0 * t)
        for d in range(3)
    ]
    lines = map_coordinates(hu, points, order=1, mode="nearest")
    lines = gaussian_filter(lines, (0, 0.8))
    widths = [w for line in lines if (w := _rise(line, t, inner)) is not None]
    if len(widths) < 25:
        return None
    low, middle, high = np.quantile(widths, [0.25, 0.5, 0.75])
    return {"median": float(middle), "q1": float(low), "q3": float(high), "profiles": len(widths)}


def _rise(line: NDArray[np.float32], t: NDArray[np.float64], inner: float) -> float | None:
    outside, inside = line[t < -4], line[t > 4]
    fat, organ = float(np.median(outside)), float(np.median(inside))
    if not (-135 < fat < -70 and abs(organ - inner) < 35):
        return None
    share = (line - fat) / (organ - fat)
    middle = int(np.argmax(share >= 0.5))
    if not 0 < middle < len(t) - 1 or share[t < -5].max() > 0.45:
        return None
    below = np.flatnonzero(share[:middle] <= 0.1)
    above = np.flatnonzero(share[middle:] >= 0.9)
    if not len(below) or not len(above):
        return None
    return float(t[middle + above[0]] - t[below[-1]])


def measure(s: Sample) -> dict[str, Any]:
    """All measures of one CT."""
    return {
        "name": s.name,
        "phase": s.phase.value,
        "simulated": s.simulated,
        "spacing_mm": [round(v, 3) for v in s.spacing],
        "hu": attenuation(s),
        "noise": noise_spectrum(s),
        "slice_correlation": slice_correlation(s),
        "edge_mm": {o: edge_rise(s, o) for o in ("liver", "kidney", "spleen")},
    }
