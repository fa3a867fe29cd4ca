"""From the scanner's own axes to RAS+: axes are permuted and flipped, nothing interpolated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from triage.reasons import NotAnalysed
from triage.types import Instance, Stack, Volume

# Outside the scan. Scanners write anything there (-1024, -2000, -3024); below -1024 no tissue
# exists, so lower values are padding whether or not the header says so.
AIR_HU = -1024.0


def to_volume(stack: Stack) -> Volume:
    """Turn a decoded stack to the axes nearest to RAS+.

    Voxels are moved whole, never interpolated; an oblique or sheared affine keeps its rotation.
    Padding, and every value below -1024 HU, becomes -1024 HU. Where the slice axis is flipped the
    instances are reordered with it, so that `instances[k]` stays the slice `hu[0, :, :, k]`.

    Parameters
    ----------
    stack : `hu` (X, Y, Z) in HU, `affine` (4, 4) index -> RAS+ mm.

    Raises
    ------
    NotAnalysed
        BAD_DIMENSIONS if the shapes of voxels, padding and instances do not fit together;
        BAD_GEOMETRY if the affine is not finite or is singular, or if the slices of a series with
        instances are not axial; PIXELS_INCONSISTENT if a voxel is not finite.
    """
    _check(stack)
    codes = nib.io_orientation(stack.affine)  # (3, 2): world axis and direction of each voxel axis
    affine = stack.affine @ nib.orientations.inv_ornt_aff(codes, stack.hu.shape)
    return Volume(
        hu=MetaTensor(_clean_hu(stack, codes)[None], affine=torch.from_numpy(np.array(affine))),
        instances=_turn_instances(stack.instances, codes),
        series=stack.series,
        notes=stack.notes,
    )


def _check(stack: Stack) -> None:
    shape = stack.hu.shape
    if len(shape) != 3 or 0 in shape:
        raise NotAnalysed("BAD_DIMENSIONS", f"expected voxels (X, Y, Z), got shape {shape}")
    if stack.instances and len(stack.instances) != shape[2]:
        raise NotAnalysed(
            "BAD_DIMENSIONS", f"{len(stack.instances)} instances for {shape[2]} slices"
        )
    if stack.padding is not None and stack.padding.shape != shape:
        raise NotAnalysed("BAD_DIMENSIONS", f"padding {stack.padding.shape} for voxels {shape}")
    affine = np.asarray(stack.affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise NotAnalysed("BAD_GEOMETRY", "expected a finite 4 x 4 affine")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)  # voxel size in mm
    if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 0.1:
        raise NotAnalysed("BAD_GEOMETRY", "the affine is singular")


def _clean_hu(stack: Stack, codes: NDArray[np.float64]) -> torch.Tensor:
    """The stack's voxels turned, float32 (X, Y, Z), padding at -1024 HU.

    One pass, slice by slice while it is in the cache; slices lie together in memory.
    """
    hu = nib.orientations.apply_orientation(stack.hu, codes).T  # (Z, Y, X), a view
    outside = None
    if stack.padding is not None:
        outside = nib.orientations.apply_orientation(stack.padding, codes).T
    voxels = np.empty(hu.shape, np.float32)

    def clean(k: int) -> bool:
        np.copyto(voxels[k], hu[k], casting="unsafe")
        # A sum is finite only if every term is (float32 sums of HU cannot overflow).
        finite = hu.dtype.kind != "f" or bool(np.isfinite(voxels[k].sum()))
        if outside is not None:
            voxels[k][outside[k]] = AIR_HU
        np.maximum(voxels[k], np.float32(AIR_HU), out=voxels[k])
        return finite

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        if not all(pool.map(clean, range(len(voxels)))):
            raise NotAnalysed("PIXELS_INCONSISTENT", "voxels that are not finite")
    return torch.from_numpy(voxels).permute(2, 1, 0)


def _turn_instances(
    instances: tuple[Instance, ...], codes: NDArray[np.float64]
) -> tuple[Instance, ...]:
    if not instances:
        return ()
    axis, direction = codes[2]
    if axis != 2:
        raise NotAnalysed("BAD_GEOMETRY", "the slices are not axial")
    return instances if direction > 0 else instances[::-1]


def straightened(volume: Volume) -> Volume:
    """The same voxels with the rotation of an oblique acquisition taken out of the affine.

    The networks then see the patient along the scanner's own axes, not interpolated, and a series
    gets the same answer however it lies in the world. Spacing and origin stay; a map made on the
    result belongs to the original's voxels one by one.
    """
    affine = torch.as_tensor(volume.hu.affine, dtype=torch.float64)
    spacing = torch.linalg.norm(affine[:3, :3], dim=0)
    straight = torch.diag(torch.cat([spacing, torch.ones(1, dtype=torch.float64)]))
    straight[:3, 3] = affine[:3, 3]
    hu = MetaTensor(volume.hu.as_tensor(), affine=straight)
    return Volume(hu=hu, instances=volume.instances, series=volume.series, notes=volume.notes)
