"""Label maps made whole: layers of hollow organs and kidneys, and the body around the organs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from triage.simulate.fields import blur, depth_mm
from triage.simulate.tissues import Tissue


def split_layers(tissues: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Kidneys into cortex and medulla, hollow organs into wall and content, by depth."""
    out = tissues.clone()
    layers = (
        (Tissue.CORTEX_RIGHT, Tissue.MEDULLA_RIGHT, 6.5),
        (Tissue.CORTEX_LEFT, Tissue.MEDULLA_LEFT, 6.5),
        (Tissue.STOMACH_CONTENT, Tissue.STOMACH_WALL, -3.5),
        (Tissue.BOWEL_CONTENT, Tissue.BOWEL_WALL, -2.2),
        (Tissue.COLON_CONTENT, Tissue.COLON_WALL, -2.0),
    )
    for source, other, limit in layers:
        mask = tissues == int(source)
        if not bool(mask.any()):
            continue
        where = mask.nonzero()
        low = (where.amin(0) - 4).clamp_min(0).tolist()
        high = (where.amax(0) + 5).tolist()
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        depth = depth_mm(mask[box], spacing)
        thin = max(-limit, 1.05 * min(spacing))  # at least one voxel
        chosen = (depth > limit) if limit > 0 else (depth > 0) & (depth < thin)
        out[box][mask[box] & chosen] = int(other)
    return out


def clothe(tissues: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Fat, abdominal wall and skin around a label map that has only organs, bones and muscles."""
    f = max(1, round(4.0 / spacing[0]))
    coarse = F.max_pool3d((tissues > 0).float()[None, None], f, ceil_mode=True)[0, 0]
    step = [s * f for s in spacing]
    hull = blur(coarse, step, (16.0, 16.0, 6.0)) > 0.18  # closes the gaps between ribs and muscles
    depth = depth_mm(hull, step)
    shape = [n * f for n in coarse.shape]
    depth = F.interpolate(depth[None, None], size=shape, mode="trilinear")[0, 0]
    depth = depth[: tissues.shape[0], : tissues.shape[1], : tissues.shape[2]]
    out = tissues.clone()
    free = tissues == 0
    out[free & (depth > 0)] = int(Tissue.FAT)
    out[free & (depth > 1) & (depth < 11)] = int(Tissue.MUSCLE)
    out[free & (depth <= 0) & (depth > -14)] = int(Tissue.FAT)
    out[free & (depth <= -14) & (depth > -16)] = int(Tissue.SKIN)
    return out
