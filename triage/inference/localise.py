"""Find the organs: from the working grid to `Anatomy`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from scipy import ndimage
from torch import Tensor

from triage.inference.ends import CUT_SHARE, SOLID, areas, cut_organs
from triage.inference.kidneys import sharpen
from triage.nets.localiser import POOL, Localiser, pad_to_stride, scale
from triage.types import ORGAN_LABEL, Anatomy, Organ

if TYPE_CHECKING:
    from triage.inference.networks import Networks

SINGLE = (*SOLID, Organ.AORTA)
LEAST = 0.05  # probability


@torch.no_grad()
def localise(net: Localiser | Networks, grid: MetaTensor) -> Anatomy:
    """Organ labels of a volume on the working grid (1, X, Y, Z), HU.

    `net`: a bundle's networks, run by their engine, or a localiser alone, run by torch.
    """
    run: Callable[[Tensor], Tensor]
    if isinstance(net, Localiser):
        run, device = net, next(net.parameters()).device
    else:
        run, device = net.programs.localiser, net.device
    hu = grid.as_tensor()[None].to(device)  # (1, 1, X, Y, Z)
    shape = hu.shape[2:]
    even = F.pad(hu, _to_even(shape), mode="replicate")
    small = F.avg_pool3d(even, POOL)  # (1, 1, X/2, Y/2, Z/2)
    size = small.shape[2:]
    logits = run(pad_to_stride(scale(small)))[:, :, : size[0], : size[1], : size[2]]
    p = logits.softmax(1)
    p = p * _largest_parts(p.argmax(1)[0]).to(p)[None]
    labels = _finer(p[0])[: shape[0], : shape[1], : shape[2]]
    labels = labels.cpu()
    if (net if isinstance(net, Localiser) else net.localiser).edges:
        labels = sharpen(labels, p[0].cpu(), grid.as_tensor()[0].cpu())
    anatomy = describe(labels, grid.affine)
    cut = cut_organs(run, small, areas(p))
    whole = {o: anatomy.volume_ml[o] > 0 and o not in cut for o in SOLID}
    return replace(anatomy, complete={**anatomy.complete, **whole}, cut=cut)


def _finer(p: Tensor) -> Tensor:
    """Class probabilities (8, x, y, z) -> the likeliest class (X, Y, Z) on the grid `POOL` finer.

    Trilinear, class by class: no copy of eight fine maps, and each only where it can be the
    likeliest; a class below `LEAST` around a voxel is not asked there.
    """
    best = _stretch(p[:1], [slice(0, n) for n in p.shape[1:]])  # (X, Y, Z), background
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=p.device)
    for c in range(1, len(p)):
        where = (p[c] > LEAST).nonzero()
        if len(where) == 0:
            continue
        low, high = (where.amin(0) - 1).clamp_min(0).tolist(), (where.amax(0) + 2).tolist()
        box = [slice(a, min(b, n)) for a, b, n in zip(low, high, p.shape[1:], strict=True)]
        fine = tuple(slice(s.start * f, s.stop * f) for s, f in zip(box, POOL, strict=True))
        own, highest = _stretch(p[c : c + 1], box), best[fine]
        labels[fine].masked_fill_(own > highest, c)
        torch.maximum(own, highest, out=highest)
    return labels


def _stretch(p: Tensor, box: list[slice]) -> Tensor:
    """Trilinear values of one map (1, x, y, z) in a box of it, on the grid `POOL` finer."""
    wide = [slice(max(s.start - 1, 0), s.stop + 1) for s in box]
    part = p[:, wide[0], wide[1], wide[2]][None]
    fine = F.interpolate(part, scale_factor=POOL, mode="trilinear", align_corners=False)[0, 0]
    for axis, (outer, inner, f) in enumerate(zip(wide, box, POOL, strict=True)):
        start = (inner.start - outer.start) * f
        fine = fine.narrow(axis, start, (inner.stop - inner.start) * f)
    return fine


def _to_even(shape: torch.Size) -> list[int]:
    pad: list[int] = []
    for n, p in zip(reversed(shape), reversed(POOL), strict=True):
        pad += [0, -n % p]
    return pad


def _largest_parts(labels: Tensor) -> Tensor:
    """Keep-mask (8, x, y, z): of each single organ only its largest connected part."""
    values = labels.cpu().numpy()
    keep = np.ones((len(ORGAN_LABEL) + 1, *values.shape), dtype=bool)
    for organ in SINGLE:
        c = ORGAN_LABEL[organ]
        parts, count = ndimage.label(values == c)
        if count > 1:
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0
            small = sizes < 0.3 * sizes.max()
            keep[c] = ~(small[parts] & (parts > 0))
    return torch.from_numpy(keep)


def describe(labels: Tensor, affine: Tensor) -> Anatomy:
    """Sizes and completeness of the organs in a label map (X, Y, Z) on the working grid."""
    voxel_ml = float(torch.linalg.det(affine[:3, :3].double()).abs()) / 1000
    volume, complete = {}, {}
    for organ, value in ORGAN_LABEL.items():
        area = (labels == value).float().sum((0, 1))  # (Z,)
        volume[organ] = float(area.sum()) * voxel_ml
        ends = max(float(area[:2].max()), float(area[-2:].max()))
        complete[organ] = volume[organ] > 0 and ends <= CUT_SHARE[organ] * float(area.max())
    return Anatomy(MetaTensor(labels[None], affine=affine), volume, complete)
