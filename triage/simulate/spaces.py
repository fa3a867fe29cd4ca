"""Spaces of the abdomen that fluid and gas keep to. Masks bool (X, Y, Z), mm, RAS+."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triage.simulate.fields import Grid, coarse_blur, member
from triage.simulate.scene import Scene
from triage.simulate.tissues import Tissue

VISCERA = (
    Tissue.LIVER,
    Tissue.SPLEEN,
    Tissue.CORTEX_RIGHT,
    Tissue.CORTEX_LEFT,
    Tissue.STOMACH_WALL,
    Tissue.BOWEL_WALL,
    Tissue.COLON_WALL,
    Tissue.AORTA,
    Tissue.VEIN,
    Tissue.PANCREAS,
    Tissue.BLADDER,
)
CELL_MM = (3.0, 3.0, 6.0)


def _cells(labels: Tensor, factors: list[int]) -> Tensor:
    """Labels of each coarse cell's voxels in its middle slice: (voxels, x, y, z)."""
    fx, fy, fz = factors
    middle = labels[:, :, fz // 2 :: fz]
    short = [-n % f for n, f in zip(labels.shape, factors, strict=True)]
    last = math.ceil(labels.shape[2] / fz) - middle.shape[2]
    middle = F.pad(middle, (0, last, 0, short[1], 0, short[0]), value=int(Tissue.AIR))
    return torch.stack([middle[i::fx, j::fy] for i in range(fx) for j in range(fy)])


def interior_fat(scene: Scene) -> Tensor:
    """Fat inside the abdominal wall.

    Two fronts run through the fat, one from the viscera, and twice as fast one from the skin: where
    the wall has gaps (between ribs, lumbar triangle, linea alba) each keeps to its side. Fat
    between muscles is reached by neither.
    """
    factors = [max(1, round(m / s)) for m, s in zip(CELL_MM, scene.grid.spacing, strict=True)]
    fat, cells = scene.labels == int(Tissue.FAT), _cells(scene.labels, factors)
    open_ = (cells == int(Tissue.FAT)).float().mean(0) > 0.6
    inner = member(cells, VISCERA).float().mean(0) > 0.3
    air = (cells == int(Tissue.AIR)).float().mean(0) > 0.5
    outer = _outside(air)
    if scene.known is not None:  # nobody labelled the bowel: its gas shows where it is
        inner |= _pockets(air & ~outer, 300 / (scene.grid.voxel_ml * math.prod(factors)))
    for _ in range(3):  # through the skin
        outer = _step(outer)
    outer &= ~inner
    core = ~_step(~open_) if scene.known is None else open_  # closes gaps below three cells
    inner, outer = _race(inner, outer, core, math.ceil(180 / CELL_MM[0]))
    inner, outer = _race(inner, outer, open_, 2)
    side = inner | (_step(inner) & ~_step(outer))  # cells that the wall shares
    for d, factor in enumerate(factors):
        side = side.repeat_interleave(factor, d).narrow(d, 0, fat.shape[d])
    return fat & side


def _race(inner: Tensor, outer: Tensor, open_: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Both fronts after some steps through what is open; neither takes a cell of the other."""
    for _ in range(steps):
        before = inner, outer
        for _ in range(2):
            outer = outer | (_step(outer) & open_ & ~inner)
        inner = inner | (_step(inner) & open_ & ~outer)
        if torch.equal(inner, before[0]) and torch.equal(outer, before[1]):
            break
    return inner, outer


def _step(mask: Tensor) -> Tensor:
    """A mask grown by one cell along the axes."""
    out = mask.clone()
    for d in range(3):
        n = mask.shape[d]
        if n > 1:
            out.narrow(d, 1, n - 1).logical_or_(mask.narrow(d, 0, n - 1))
            out.narrow(d, 0, n - 1).logical_or_(mask.narrow(d, 1, n - 1))
    return out


def _outside(air: Tensor) -> Tensor:
    """Air around the body: what is connected with the border of the image in x or y."""
    from scipy.ndimage import label

    border = torch.zeros_like(air)
    border[0], border[-1], border[:, 0], border[:, -1] = True, True, True, True
    parts, _ = label((air | border).cpu().numpy())
    touching = np.unique(parts[(air & border).cpu().numpy()])
    outside = torch.from_numpy(np.isin(parts, touching[touching > 0]))
    return outside.to(air.device) | border


def _pockets(gas: Tensor, most: float) -> Tensor:
    """The connected parts of 8 to `most` cells: bowel gas, not lungs or noise."""
    from scipy.ndimage import label

    parts, _ = label(gas.cpu().numpy())
    size = np.bincount(parts.ravel())
    few = (size >= 8) & (size <= most)
    few[0] = False
    return torch.from_numpy(few[parts]).to(gas.device)


def peritoneal_fat(scene: Scene, inner_fat: Tensor) -> Tensor:
    """Fat of the peritoneal cavity: near its organs, not behind the kidneys or at the spine."""
    organs = (
        Tissue.LIVER,
        Tissue.SPLEEN,
        Tissue.STOMACH_WALL,
        Tissue.BOWEL_WALL,
        Tissue.COLON_WALL,
        Tissue.GALLBLADDER,
        Tissue.BLADDER,
    )
    near = coarse_blur(member(scene.labels, organs), scene.grid, 9.0)
    retro = (Tissue.CORTEX_RIGHT, Tissue.CORTEX_LEFT, Tissue.VERTEBRA)
    behind = coarse_blur(member(scene.labels, retro), scene.grid, 9.0)
    return inner_fat & (near > 0.10) & (behind < 0.25)


def recesses(scene: Scene, box: tuple[slice, slice, slice]) -> Tensor:
    """How soon free fluid gathers in a place of the supine patient: higher is sooner, (x, y, z).

    Morison's pouch, around the spleen and the liver, paracolic gutters, pelvis; dependent first.
    """
    grid, labels = scene.grid, scene.labels
    near = [
        coarse_blur(member(labels, t), grid, 7.0)[box]
        for t in (
            (Tissue.LIVER,),
            (Tissue.SPLEEN,),
            (Tissue.CORTEX_RIGHT, Tissue.CORTEX_LEFT),
            (Tissue.COLON_WALL, Tissue.COLON_CONTENT),
        )
    ]
    liver, spleen, kidney, colon = near
    morison = 4.0 * torch.sqrt((liver * kidney).clamp_min(0))
    wide, tall = _centred(grid, box, 0).abs(), _centred(grid, box, 2)
    back = -_centred(grid, box, 1)
    gutter = 1.5 * colon * (wide - 0.6).clamp(0, 1.5)
    pelvis = 1.2 * (-tall - 0.9).clamp(0, 1.5)
    return 2.2 * liver + 3.0 * spleen + morison + gutter + pelvis + 0.6 * back


def _centred(grid: Grid, box: tuple[slice, slice, slice], dim: int) -> Tensor:
    """Coordinate along an axis of a box, zero mean, unit sd; broadcasts to the box."""
    axis = grid.axis(dim)[box[dim]]
    shape = [1, 1, 1]
    shape[dim] = len(axis)
    return ((axis - axis.mean()) / axis.std().clamp_min(1e-6)).reshape(shape)
