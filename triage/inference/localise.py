"""Find the organs: from the working grid to `Anatomy`."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from scipy import ndimage
from torch import Tensor

from triage.nets.localiser import POOL, Localiser, pad_to_stride, scale
from triage.types import ORGAN_LABEL, Anatomy, Organ

SINGLE = (Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT, Organ.AORTA)
# An organ is cut off if the scan's end shows more than this share of its largest area. The rectum
# leaves every scan that ends at the pubis.
CUT_SHARE = {organ: 0.25 if organ is Organ.BOWEL else 0.10 for organ in Organ}


@torch.no_grad()
def localise(net: Localiser, grid: MetaTensor) -> Anatomy:
    """Organ labels of a volume on the working grid (1, X, Y, Z), HU."""
    device = next(net.parameters()).device
    hu = grid.as_tensor()[None].to(device)  # (1, 1, X, Y, Z)
    shape = hu.shape[2:]
    even = F.pad(hu, _to_even(shape), mode="replicate")
    small = F.avg_pool3d(even, POOL)  # (1, 1, X/2, Y/2, Z/2)
    size = small.shape[2:]
    logits = net(pad_to_stride(scale(small)))[:, :, : size[0], : size[1], : size[2]]
    p = logits.softmax(1)
    p = p * _largest_parts(p.argmax(1)[0]).to(p)[None]
    p = F.interpolate(p, size=even.shape[2:], mode="trilinear", align_corners=False)
    labels = p.argmax(1)[0, : shape[0], : shape[1], : shape[2]].to(torch.uint8)
    return describe(labels.cpu(), grid.affine)


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
