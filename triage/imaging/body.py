"""Where the patient's body lies in a scan."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

BODY_HU = -300.0  # below: air and lung; above: fat, tissue, table
SAMPLE_MM = (4.0, 4.0, 10.0)  # the body is found on every n-th voxel, about this far apart

Slices = tuple[slice, slice, slice]


def body_box(hu: torch.Tensor, *, margin_mm: float = 10.0) -> Slices:
    """The voxels around the patient's body: largest component above -300 HU, whole range in Z.

    Structures thinner than about 12 mm in plane (table, tubes) are opened away before. Where
    nothing is found the whole volume is returned: a threshold must never cut a patient off.

    Parameters
    ----------
    hu : MetaTensor (1, X, Y, Z) in HU (a plain tensor counts as 1 mm voxels).
    margin_mm : kept around the body in X and Y.
    """
    shape = [int(n) for n in hu.shape[1:]]
    size = [1.0, 1.0, 1.0]  # mm
    voxels = hu
    if isinstance(hu, MetaTensor):
        size = [float(mm) for mm in hu.pixdim]
        voxels = hu.as_tensor()
    step = [max(1, int(wanted // mm)) for wanted, mm in zip(SAMPLE_MM, size, strict=True)]
    body = (voxels[0, :: step[0], :: step[1], :: step[2]] > BODY_HU).cpu().numpy()
    body = ndimage.binary_opening(body, np.ones((3, 3, 1), dtype=bool))
    parts, count = ndimage.label(body)
    box = [slice(0, n) for n in shape]
    if count > 0:
        largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
        found = ndimage.find_objects((parts == largest).astype(np.int32))[0]
        for axis in (0, 1):
            reach = ceil(margin_mm / size[axis]) + step[axis]
            low = max(0, found[axis].start * step[axis] - reach)
            high = min(shape[axis], found[axis].stop * step[axis] + reach)
            box[axis] = slice(low, high)
    return box[0], box[1], box[2]
