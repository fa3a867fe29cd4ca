"""Backgrounds from files: any CT with organ labels, or label maps without an image.

Labels follow the 117-structure convention of TotalSegmentator v2 (the order of `LABEL_NAMES`), or
the short one of four organs (1 spleen, 2 right kidney, 3 left kidney, 4 liver).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.dress import clothe, split_layers
from triage.simulate.fields import Dice, Grid, member, rotation, smooth_noise
from triage.simulate.label_checks import SOLID, BackgroundError, apart, check_fit, check_sides
from triage.simulate.label_names import LABEL_NAMES
from triage.simulate.scene import Scene, fill_bowel
from triage.simulate.tissues import Tissue, tissue_of

SHORT = {1: "spleen", 2: "kidney_right", 3: "kidney_left", 4: "liver"}


@dataclass
class Background:
    """A loaded background in RAS+: `labels` uint8 and `hu` float32 (or None), (X, Y, Z)."""

    name: str
    labels: Tensor
    hu: Tensor | None
    spacing: tuple[float, float, float]
    known: frozenset[Tissue] | None


def _canonical(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    try:
        image = nib.as_closest_canonical(nib.load(path))
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise BackgroundError(
            f"{path.name} cannot be read as NIfTI (.nii or .nii.gz): {error}. Export it again."
        ) from None
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise BackgroundError(f"Expected a 3D image (X, Y, Z), got {data.shape} in {path.name}.")
    return data, np.asarray(image.affine, dtype=np.float64)


def _ids(data: NDArray[np.float32], name: str) -> NDArray[np.int64]:
    """Label ids as whole numbers. Raises BackgroundError for anything else."""
    if not np.isfinite(data).all() or data.min() < 0 or np.abs(data - np.rint(data)).max() > 1e-3:
        raise BackgroundError(
            f"Labels must be whole numbers from 0 on, got values from {data.min():g} to "
            f"{data.max():g} in {name}. Export a label map, not probabilities or an image."
        )
    return np.rint(data).astype(np.int64)


def read_names(path: Path) -> dict[int, str]:
    """Label names from JSON, `{"1": "spleen", ...}`. Raises BackgroundError for anything else."""
    try:
        data = json.loads(path.read_text())
        names = {int(number): str(name) for number, name in data.items()}
    except (OSError, UnicodeDecodeError, ValueError, AttributeError) as error:
        raise BackgroundError(
            f'{path.name} is no table of label names: expected JSON such as {{"1": "spleen"}}, '
            f"got: {error}."
        ) from None
    unknown = sorted(name for name in names.values() if tissue_of(name) is None)
    if unknown:
        raise BackgroundError(
            f"Unknown label names in {path.name}: {', '.join(unknown[:8])}. Expected names of the "
            "117-structure convention such as liver, spleen, kidney_left, small_bowel, colon, "
            "aorta; leave the others out of the label map (0)."
        )
    return names


def to_tissues(
    ids: NDArray[np.int64], voxel_ml: float, name: str, own: Mapping[int, str] | None = None
) -> tuple[Tensor, frozenset[Tissue] | None]:
    """Label ids -> tissues, and which tissues the labels tell apart (None: all of them).

    `own`: names of the ids; else those of the convention that fits.
    """
    present = [int(i) for i in np.unique(ids) if i != 0]
    names: Mapping[int, str] = dict(enumerate(LABEL_NAMES, start=1))
    short = set(present) <= set(SHORT) and float((ids == 4).sum()) * voxel_ml > 250
    names = own or (SHORT if short else names)
    table = np.zeros(max([*present, 0]) + 1, dtype=np.uint8)
    for i in present:
        tissue = tissue_of(names.get(i, ""))
        if tissue is None:
            expected = (
                f"ids {', '.join(map(str, sorted(own)))} as in the table of names"
                if own
                else f"ids 1-{len(LABEL_NAMES)} of the 117-structure convention, or 1-4 for "
                "spleen, right kidney, left kidney, liver; name other ids with --label-names"
            )
            raise BackgroundError(f"Unknown label {i} in {name}: expected {expected}.")
        table[i] = int(tissue)
    tissues = torch.from_numpy(table[ids])
    if not any(bool((tissues == int(t)).any()) for t in SOLID):
        raise BackgroundError(
            f"No liver, spleen or kidney among the labels of {name}: "
            "expected at least one of them, because injuries are put into organs."
        )
    found = frozenset(Tissue(int(t)) for t in torch.unique(tissues) if int(t))
    return tissues, found if len(present) < 12 else None


def load(
    ct: Path | None, labels: Path, name: str = "", names: Mapping[int, str] | None = None
) -> Background:
    """Read a CT (NIfTI, or a folder of DICOM) with its labels; without a CT, labels alone.

    `names`: of the label ids, where they follow none of the two conventions.
    Raises BackgroundError when the two differ in shape or place, when a label is unknown, when no
    organ is among them, or when the CT has no tissue where they say that an organ is.
    """
    data, affine = _canonical(labels)
    ids = _ids(data, labels.name)
    spacing = tuple(float(v) for v in np.linalg.norm(affine[:3, :3], axis=0))
    hu = None
    if ct is not None:
        image, ct_affine = _read_ct(ct)
        if image.shape != ids.shape:
            raise BackgroundError(
                f"Labels and CT must have the same shape: CT {image.shape}, labels {ids.shape}. "
                "Export the labels on the voxels of this series."
            )
        gap = apart(affine, ct_affine, ids.shape)
        if gap > 2:
            raise BackgroundError(
                f"Labels and CT lie in different places: their corners are up to {gap:.1f} mm "
                f"apart; affines of the CT {ct_affine.round(2).tolist()} and of the labels "
                f"{affine.round(2).tolist()}. Export the labels from the same series."
            )
        hu = torch.from_numpy(np.clip(image, -1024, 3071))
    voxel_ml = float(np.prod(spacing)) / 1000
    tissues, known = to_tissues(ids, voxel_ml, labels.name, names)
    if hu is not None:
        check_fit(tissues, hu, labels.name)
    check_sides(tissues, tissues > 0 if hu is None else hu > -200, labels.name)
    tissues = split_layers(tissues, spacing)
    if hu is None:
        if known is not None:
            raise BackgroundError(
                f"{labels.name} names {len(known)} structures only: too few to render a CT. "
                "Give the CT as well, or a label map of the whole anatomy."
            )
        tissues = clothe(tissues, spacing)
    else:
        free = tissues == 0  # what nobody labelled is told apart by its HU
        tissues[free & (hu > -160) & (hu < -30)] = int(Tissue.FAT)
        tissues[free & (hu >= -30) & (hu < 150)] = int(Tissue.MUSCLE)
        tissues[free & (hu >= 150)] = int(Tissue.BONE)
    box = _body_box(tissues)
    tissues, hu = tissues[box].contiguous(), None if hu is None else hu[box].contiguous()
    return Background(name or labels.name, tissues, hu, spacing, known)  # type: ignore[arg-type]


def _body_box(tissues: Tensor) -> tuple[slice, slice, slice]:
    """The part of the volume that holds the body: air and table around it are left out."""
    body = ((tissues > 0) & (tissues != int(Tissue.GAS))).float().mean(2)
    x, y = body.mean(1), body.mean(0)
    cut = []
    for line in (x, y):
        index = (line > 0.02).nonzero().flatten()
        cut.append(slice(max(int(index[0]) - 3, 0), int(index[-1]) + 4))
    return cut[0], cut[1], slice(None)


def _read_ct(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    if path.is_file() and path.name.endswith((".nii", ".nii.gz")):
        return _canonical(path)
    from triage.dicom import decode, open_study
    from triage.reasons import NotAnalysed
    from triage.settings import settings

    try:
        with open_study(path, settings()) as study:
            stack = decode(study.series[0], settings())
    except NotAnalysed as refused:
        raise BackgroundError(f"{path.name} cannot serve as a background. {refused}") from None
    image = nib.as_closest_canonical(
        nib.Nifti1Image(np.asarray(stack.hu, np.float32), stack.affine)
    )
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)


def scene(
    background: Background, spacing: tuple[float, float, float], dice: Dice, *, deform: float = 1.0
) -> Scene:
    """The background on a grid of the given spacing, bent by a random smooth deformation.

    `deform` scales rotation, size and elastic change; 0 keeps the person as it is.
    """
    size = [n * s for n, s in zip(background.labels.shape, background.spacing, strict=True)]
    scales = np.exp(dice.rng.normal(0, 0.09 * deform, 3))
    extent = [float(e * k) for e, k in zip(size, scales, strict=True)]
    low, high = _range(background, dice, deform)
    extent[2] *= high - low
    shape = tuple(max(8, round(e / s)) for e, s in zip(extent, spacing, strict=True))
    low_corner = (-extent[0] / 2, -extent[1] / 2, -extent[2] / 2)
    grid = Grid(shape, spacing, low_corner, str(dice.device))  # type: ignore[arg-type]
    coords = _coordinates(shape, (low, high), grid, dice, deform)
    labels = F.grid_sample(
        background.labels.to(dice.device).permute(2, 1, 0).float()[None, None],
        coords,
        mode="nearest",
        padding_mode="zeros" if background.hu is None else "border",
        align_corners=False,
    )[0, 0].permute(2, 1, 0)
    out = Scene(grid, labels.to(torch.uint8).contiguous(), background.name, known=background.known)
    if background.hu is not None:
        hu = F.grid_sample(
            background.hu.to(dice.device).permute(2, 1, 0)[None, None],
            coords,
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )[0, 0]
        out.hu = hu.permute(2, 1, 0).contiguous()
    else:
        fill_bowel(out.labels, grid, dice)
    return out


def _range(background: Background, dice: Dice, deform: float) -> tuple[float, float]:
    """Part of the z axis to show (0 feet, 1 head): around the solid organs, sometimes cut."""
    solid = member(background.labels, SOLID)
    z = solid.any(0).any(0).nonzero().flatten()
    n = background.labels.shape[2]
    mm = background.spacing[2]
    above = dice.uniform(10, 70) / mm
    below = dice.uniform(60, 260) / mm
    if deform == 0:
        return 0.0, 1.0
    return max(0.0, (float(z.min()) - below) / n), min(1.0, (float(z.max()) + above) / n)


def _coordinates(
    shape: tuple[int, ...], z_range: tuple[float, float], grid: Grid, dice: Dice, deform: float
) -> Tensor:
    """Sampling points for grid_sample: (1, Z, Y, X, 3) in [-1, 1], last axis x, y, z."""
    axes = [torch.linspace(-1 + 1 / n, 1 - 1 / n, n, device=dice.device) for n in shape]
    low, high = z_range
    axes[2] = (axes[2] + 1) / 2 * (2 * (high - low)) + 2 * low - 1
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    turn = torch.tensor(rotation(dice, 3.0 * deform), dtype=torch.float32, device=dice.device)
    half = torch.tensor(
        [n * s / 2 for n, s in zip(shape, grid.spacing, strict=True)], device=dice.device
    )
    half[2] = half[2] / max(high - low, 1e-6)
    middle = float(low + high - 1)
    points = torch.stack([x * half[0], y * half[1], (z - middle) * half[2]], -1) @ turn.T
    for d in range(3):
        if deform:
            noise = smooth_noise(dice, shape, grid.spacing, 65).permute(2, 1, 0)
            points[..., d] += deform * 3.5 * noise
        points[..., d] /= half[d]
    points[..., 2] += middle
    return points[None]
