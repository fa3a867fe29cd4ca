"""Maps as NIfTI files on the voxels of the CT."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

# Steps on each side of zero. Saliency has no finer meaning, and 8 bits with a scale factor keep a
# whole CT's map at a few megabytes.
STEPS = 127


def write_nifti(saliency: MetaTensor, path: Path) -> Path:
    """Write a map on the volume's voxels as NIfTI-1 (gzip where the name ends in .gz).

    Stored as int8 with a scale factor and no offset: zero stays exactly zero, signs stay, values
    are rounded to 1/127 of the largest magnitude. The affine is that of the volume, RAS+ mm, as
    both sform and qform (scanner anatomical); a sheared affine has no qform.

    Parameters
    ----------
    saliency : (1, X, Y, Z), signed: positive speaks for the target, negative against.
    path : file to write; an existing file is replaced.

    Raises
    ------
    ValueError
        If the map is not (1, X, Y, Z) or not finite.
    """
    values = saliency.as_tensor().cpu()
    if values.ndim != 4 or values.shape[0] != 1:
        raise ValueError(f"Expected a map (1, X, Y, Z), got {tuple(values.shape)}")
    memory = sorted(range(4), key=values.stride, reverse=True)  # minimum and maximum are slow else
    largest = max(abs(float(v)) for v in values.permute(memory).aminmax())
    if not np.isfinite(largest):
        raise ValueError("Expected a finite map")
    # The scale is stored as float32; at least tiny, so that a map of denormals divides cleanly.
    slope = float(np.float32(max(largest, 1e-30) / STEPS))
    stored = (values[0] / slope).round_().clamp_(-STEPS, STEPS).char().numpy()  # int8 (X, Y, Z)
    affine = saliency.affine.cpu().numpy().astype(np.float64)
    image = nib.Nifti1Image(stored, affine, dtype=np.int8)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner" if _is_rigid(affine) else "unknown")
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(slope, 0.0)
    image.header["cal_min"], image.header["cal_max"] = -largest, largest
    image.header["descrip"] = b"saliency: positive for, negative against"
    nib.save(image, path)
    return path


def _is_rigid(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-4))
