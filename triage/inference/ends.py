"""Which organs the ends of a scan cut off.

To the localiser the end of a scan looks like the end of a body: the last 12 to 24 mm of an organ
that is cut there it calls background, and the upper half of a liver a whole one. Continued by its
own mirror image the organ goes on, and is found up to the last slice.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from triage.nets.localiser import pad_to_stride, scale
from triage.types import ORGAN_LABEL, Organ

SOLID = (Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT)
# An organ is cut off if the scan's end shows more than this share of its largest area. The rectum
# leaves every scan that ends at the pubis, and muscles beside it are taken for bowel: up to 0.45 in
# whole simulated patients, 0.74 and more where bowel is cut off.
CUT_SHARE = {organ: 0.5 if organ is Organ.BOWEL else 0.10 for organ in Organ}
LEAST_CM2 = 2.0  # of an organ at the end
VOXEL_CM2 = 0.45 * 0.45  # of the network's grid
SLAB, MIRRORED = 12, 8  # slices of 6 mm
REACH = 6  # slices: an organ that is seen in the scan, but not so near to an end, is not cut there


def areas(p: Tensor) -> Tensor:
    """Logits or probabilities (1, 8, x, y, z) -> voxels of each class in each slice (8, z)."""
    labels = p.argmax(1)[0]  # (x, y, z)
    return torch.stack([(labels == c).sum((0, 1)) for c in range(p.shape[1])]).float()


def cut_organs(run: Callable[[Tensor], Tensor], small: Tensor, found: Tensor) -> frozenset[Organ]:
    """Solid organs whose cross-section at an end of the scan is not zero.

    Bowel is not asked for: beside a mirrored pelvis the localiser sees too much of it. Nor is an
    organ that the whole scan shows further in: a mirrored hip may look like a kidney.

    `run`: the localiser; `small`: HU (1, 1, x, y, z) on its grid; `found` (8, z): areas that it saw
    in the whole scan.
    """
    thin = MIRRORED if small.shape[4] <= SLAB else 0  # both ends lie in one slab
    foot = _end(run, small[..., :SLAB], MIRRORED, thin)
    head = foot if thin else _end(run, small[..., -SLAB:], 0, MIRRORED)
    cut = set()
    for organ in SOLID:
        c = ORGAN_LABEL[organ]
        seen = bool(found[c].any())
        at_foot, at_head = (
            float(area) if near.any() or not seen else 0.0
            for area, near in ((foot[c, 0], found[c, :REACH]), (head[c, -1], found[c, -REACH:]))
        )
        end = max(at_foot, at_head)
        most = max(float(a[c].max()) for a in (found, foot, head))
        if end * VOXEL_CM2 >= LEAST_CM2 and end > CUT_SHARE[organ] * most:
            cut.add(organ)
    return frozenset(cut)


def _end(run: Callable[[Tensor], Tensor], slab: Tensor, below: int, above: int) -> Tensor:
    """Areas (8, depth) in a slab of slices, continued by its mirror image."""
    depth = slab.shape[4]
    at = torch.arange(-below, depth + above).abs() % max(1, 2 * depth - 2)
    at = torch.minimum(at, (2 * depth - 2 - at).abs())  # ... 2 1 0 1 2 ... d-1 d-2 ...
    wide = slab[..., at]
    x, y, z = wide.shape[2:]
    seen = areas(run(pad_to_stride(scale(wide)))[:, :, :x, :y, :z])
    return seen[:, below : below + depth]
