"""Kidneys to their edges: where the localiser looks for them, decided by how bright they are.

The localiser knows where kidneys usually lie and follows that too far: of one that lies low it
misses the lower pole, and takes a part of the liver or the psoas for it. With contrast a kidney is
brighter than all that touches it. So its place becomes a prior, blurred by as much as the localiser
errs, and each tissue's distribution of HU is learned from the scan itself by expectation
maximisation (Van Leemput et al., IEEE TMI 18, 1999; Ashburner & Friston, NeuroImage 26, 2005).
Mean Dice of 54 simulated kidneys with bundle 0.5, before and after: 0.83 to 0.90 in an anatomy with
low kidneys, 0.92 to 0.94 in two others. Livers and spleens become worse: muscle is as bright.

Nothing is changed where a kidney is not bright: without contrast, or without blood.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from triage.imaging.resample import WORKING_SPACING
from triage.nets.localiser import POOL
from triage.types import ORGAN_LABEL, Organ

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

KIDNEYS = (Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT)
SOLID = tuple(ORGAN_LABEL[o] for o in (Organ.LIVER, Organ.SPLEEN, *KIDNEYS))
HALF = (2, 2, 1)  # voxels of the working grid in one of that on which the last step decides
SPACING = np.multiply(WORKING_SPACING, POOL)  # mm: of the localiser's grid
FINE = np.multiply(WORKING_SPACING, HALF)  # mm: 3 each way
ROOM = 40.0  # mm around what the localiser found
BLUR = 8.0  # mm: how far it errs
SMOOTH = 1.5  # mm: tissues are larger than voxels
ROUNDS = 6
OWN = 0.5  # share of the localiser's map in the prior of a later round
LEAST_HU, LEAST_ML = 100.0, 20.0  # median of a kidney with contrast; less of it tells nothing
SURE = 0.9  # what the localiser is as sure of stays, dark or bright: an injury may be there
THIN = 1
CLOSE = 2  # voxels of 3 mm: what bright parts enclose stays, too
CHANGE = (0.6, 1.8)  # times the volume; beyond, something else was found
LOW, BIN, BINS = -200.0, 10.0, 61  # HU of the first bin, width, number
WIDTH = 1.5  # bins by which a distribution is smoothed
FLOOR = 1e-3  # share of any HU in every tissue
NONE = 1e-4  # prior of a tissue where the localiser sees none


def sharpen(labels: Tensor, p: Tensor, hu: Tensor) -> Tensor:
    """Organ labels (X, Y, Z) on the working grid with both kidneys taken to their edges.

    labels: of `ORGAN_LABEL`; p: the localiser's probabilities (8, x, y, z) on its grid; hu: the
    scan (X, Y, Z) on the working grid. All on the CPU; returns new labels, or the same.
    """
    if all(not bool((labels == ORGAN_LABEL[k]).any()) for k in KIDNEYS):
        return labels
    coarse = F.avg_pool3d(_padded(hu, POOL), POOL)[0, 0].numpy()  # (x, y, z)
    fine = F.avg_pool3d(_padded(hu, HALF), HALF)[0, 0].numpy()  # (X/2, Y/2, Z)
    out = labels.clone()
    for kidney in KIDNEYS:
        found = _edges(ORGAN_LABEL[kidney], p.numpy(), coarse, fine)
        if found is not None:
            _write(out, ORGAN_LABEL[kidney], *found)
    return out


def _padded(hu: Tensor, by: tuple[int, int, int]) -> Tensor:
    pad = [v for n, f in zip(reversed(hu.shape), reversed(by), strict=True) for v in (0, -n % f)]
    return F.pad(hu[None, None], pad, mode="replicate")  # (1, 1, X, Y, Z)


def _edges(
    label: int, p: Array, coarse: Array, fine: Array
) -> tuple[tuple[slice, ...], Array, NDArray[np.uint8]] | None:
    """Box on the grid of 3 mm, the kidney as a soft mask in it, and which tissue is likeliest.

    None where it stays as it is.
    """
    own = p.argmax(0) == label
    before = own.sum() * float(SPACING.prod()) / 1000
    if before < LEAST_ML or np.median(coarse[own]) < LEAST_HU:
        return None
    box = tuple(
        slice(max(int(i.min() - ROOM / s), 0), int(i.max() + ROOM / s) + 1)
        for i, s in zip(own.nonzero(), SPACING, strict=True)
    )
    at = p[(slice(None), *box)]  # (8, a, b, c)
    prior, shares = _learn(at, coarse[box])
    wide = tuple(
        slice(s.start * f // h, min(s.stop * f // h, n))
        for s, f, h, n in zip(box, POOL, HALF, fine.shape, strict=True)
    )
    size = tuple(s.stop - s.start for s in wide)
    q = _posterior(_to(prior, size), shares, fine[wide], FINE)  # (8, A, B, C)
    likeliest = q.argmax(0)
    kidney = likeliest == label
    was = _to(at, size)
    stays = (was.argmax(0) == label) & ~np.isin(likeliest, SOLID)
    kidney |= stays & (_closed(kidney) | (was[label] > SURE))
    kidney = _largest(kidney)
    ratio = kidney.sum() * float(FINE.prod()) / 1000 / before
    if not CHANGE[0] <= ratio <= CHANGE[1]:
        return None
    soft = np.where(kidney, np.maximum(q[label], 0.51), np.minimum(q[label], 0.49))
    return wide, soft.astype(np.float32), likeliest.astype(np.uint8)


def _learn(at: Array, hu: Array) -> tuple[Array, Array]:
    """Prior (8, a, b, c) and distribution of HU (8, BINS) of each tissue, after `ROUNDS`."""
    q = at
    for r in range(ROUNDS):
        prior = _blurred(at if r == 0 else OWN * at + (1 - OWN) * q, BLUR / SPACING) + NONE
        prior /= prior.sum(0)
        shares = _shares(q, _bins(hu))
        q = _posterior(prior, shares, hu, SPACING)
    return prior, shares


def _bins(hu: Array) -> NDArray[np.intp]:
    return ((hu - LOW) / BIN).clip(0, BINS - 1).astype(np.intp)


def _shares(q: Array, bins: NDArray[np.intp]) -> Array:
    """How often each HU is in each tissue, (8, BINS); nothing of a tissue that is not there."""
    out = np.zeros((len(q), BINS), np.float32)
    for c, weight in enumerate(q):
        counts = np.bincount(bins.ravel(), weight.ravel(), BINS)
        if counts.sum() > 1:
            smooth = ndimage.gaussian_filter1d(counts, WIDTH, mode="nearest")
            out[c] = smooth / smooth.sum() + FLOOR / BINS
    return out


def _posterior(prior: Array, shares: Array, hu: Array, spacing: NDArray[np.float64]) -> Array:
    joint = prior * shares[:, _bins(hu)]
    joint /= joint.sum(0).clip(1e-12)
    return _blurred(joint, SMOOTH / spacing)


def _blurred(maps: Array, sigma: NDArray[np.float64]) -> Array:
    return np.stack([ndimage.gaussian_filter(m, sigma, truncate=3.0) for m in maps])


def _to(maps: Array, size: tuple[int, ...]) -> Array:
    """Trilinear on another grid over the same box."""
    out: Array = F.interpolate(torch.from_numpy(maps)[None], size=size, mode="trilinear")[0].numpy()
    return out


def _closed(mask: Mask) -> Mask:
    room = CLOSE + 1
    wide = ndimage.binary_closing(np.pad(mask, room), iterations=CLOSE)
    return np.asarray(wide[room:-room, room:-room, room:-room])


def _largest(mask: Mask) -> Mask:
    """The largest part, cut from others where it is thin: vessels, the pancreas in early phases."""
    parts, count = ndimage.label(ndimage.binary_erosion(mask, iterations=THIN))
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    core = parts == sizes.argmax()
    return np.asarray(ndimage.binary_dilation(core, iterations=THIN + 1, mask=mask))


def _write(
    labels: Tensor, label: int, box: tuple[slice, ...], soft: Array, likeliest: NDArray[np.uint8]
) -> None:
    """The kidney into `labels`: it takes from background and from what HU call kidney, and gives
    back to the solid organ that HU call it, or to background."""
    place = tuple(
        slice(s.start * f, min(s.stop * f, n))
        for s, f, n in zip(box, HALF, labels.shape, strict=True)
    )
    size = [s.stop - s.start for s in place]
    wide = F.interpolate(
        torch.from_numpy(soft)[None, None], scale_factor=[float(f) for f in HALF], mode="trilinear"
    )[0, 0, : size[0], : size[1], : size[2]]
    kidney = wide > 0.5
    other = torch.from_numpy(likeliest).repeat_interleave(2, 0).repeat_interleave(2, 1)
    other = other[: size[0], : size[1], : size[2]]
    other = torch.where(
        torch.isin(other, torch.tensor(SOLID, dtype=torch.uint8)) & (other != label), other, 0
    )
    region = labels[place]
    free = (region == 0) | (region == label) | (other == 0)
    gone = (region == label) & ~kidney
    region[gone] = other[gone]
    region[kidney & free] = label
