"""Painting shapes into a label volume: rough ellipsoids, tubes and signed distances, RAS+ mm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.simulate.fields import (
    Dice,
    Grid,
    ellipsoid,
    empty,
    member,
    rotation,
    smooth_noise,
    sub_grid,
)
from triage.simulate.scene import Person
from triage.simulate.tissues import Tissue
from triage.simulate.tubes import paint_tube, path_box, smooth_path

Box = tuple[slice, slice, slice]
Triple = tuple[float, float, float]
Layers = tuple[tuple[float, Tissue], ...]


def smooth_min(*fields: Tensor, soft: float) -> Tensor:
    """Minimum of signed distances (positive inside) with corners rounded over `soft` mm."""
    out = fields[0]
    for other in fields[1:]:
        h = (0.5 + 0.5 * (other - out) / soft).clamp(0, 1)
        out = torch.lerp(other, out, h) - soft * h * (1 - h)
    return out


class Painter:
    """Paints shapes into a label volume through one random smooth deformation.

    Shapes are given in the coordinates of a standard person; `xyz` are those coordinates at each
    voxel, `place` maps them to the grid. `detail` is an offset in HU for structures thinner than a
    voxel. `depth` and `inner` are mm below the muscles' outer surface and inside the wall's inner
    one; `dome` mm below the diaphragm.
    """

    def __init__(self, grid: Grid, person: Person, dice: Dice) -> None:
        self.grid, self.person, self.dice = grid, person, dice
        device = torch.device(grid.device)
        self.labels = torch.zeros(grid.shape, dtype=torch.uint8, device=device)
        self.detail = torch.zeros(grid.shape, device=device)
        self.scale = np.array(
            [person.half_width / 148, person.half_depth / 105, person.stretch], dtype=float
        )
        # organs vary less than the trunks that they lie in
        self.evened = float(np.prod(self.scale)) ** -0.2
        self.z = grid.axis(2) / person.stretch  # without the deformation
        self.xyz: list[Tensor] = []
        self._bend: list[Tensor] = []
        for d, amount in enumerate((4.0, 4.0, 3.5)):
            noise = smooth_noise(dice, grid.shape, grid.spacing, 80)
            noise *= dice.uniform(0.5, 1.1) * amount
            shape = [1, 1, 1]
            shape[d] = -1
            self._bend.append(noise)
            self.xyz.append(noise + (grid.axis(d) / float(self.scale[d])).reshape(shape))
        self.depth = self.inner = self.dome = torch.zeros(())
        self.texture = smooth_noise(dice, grid.shape, grid.spacing, 28)
        self.fine = smooth_noise(dice, grid.shape, grid.spacing, 10)

    def curve(self, at: Sequence[float], values: Sequence[float], soft: float = 14.0) -> Tensor:
        """A smooth function of height, (1, 1, Z): `values` at the heights `at`, ascending."""
        z = self.z.cpu().numpy()
        offsets = np.linspace(-soft, soft, 5)
        line = np.mean([np.interp(z + o, at, values) for o in offsets], axis=0)
        out = torch.as_tensor(line, dtype=torch.float32, device=self.labels.device)
        return out[None, None]

    def jitter(self, point: Triple, sd: float = 4.0) -> NDArray[np.float64]:
        return np.asarray(point, dtype=float) + self.dice.rng.normal(0, sd, 3)

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard coordinates (n, 3) -> where they lie on the grid, RAS+ mm."""
        out = points * self.scale
        for _ in range(2):
            shift = np.zeros_like(out)
            for i, point in enumerate(out):
                ijk = self.grid.index(point.tolist())
                shift[i] = [float(b[ijk]) for b in self._bend]
            out = (points - shift) * self.scale
        return np.asarray(out)

    def region(self, low: Triple, high: Triple, margin: float = 14.0) -> Box:
        """Index box that holds the standard coordinates from `low` to `high`."""
        centre = (np.asarray(low) + np.asarray(high)) / 2 * self.scale
        half = (np.asarray(high) - np.asarray(low)) / 2 * self.scale + margin
        return self.grid.box(centre.tolist(), half.tolist())

    def local(self, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        """Standard coordinates within a box."""
        return self.xyz[0][box], self.xyz[1][box], self.xyz[2][box]

    def paint(
        self, box: Box, mask: Tensor, tissue: Tissue, inside: Sequence[Tissue] | None = None
    ) -> None:
        """Set a tissue in a box where `mask`; only over the tissues `inside`."""
        region = self.labels[box]
        if inside is not None:
            mask = mask & member(region, [int(t) for t in inside])
        region.masked_fill_(mask, int(tissue))

    def blob(
        self,
        tissue: Tissue,
        centre: NDArray[np.float64],
        radii: Triple,
        *,
        tilt: float = 6.0,
        rough: float = 0.12,
        inside: tuple[Tissue, ...] | None = None,
        below: bool = False,
    ) -> None:
        """Paint a rough ellipsoid over the tissues `inside`; `below`: only under the diaphragm."""
        r = max(radii) * (1 + rough)
        box = self.region(tuple(centre - r), tuple(centre + r))
        if empty(box):
            return
        shape = ellipsoid(self.local(box), tuple(centre), radii, rotation(self.dice, tilt))
        mask = shape + rough * self.texture[box] < 1
        if below:
            mask &= self.dome[box] > 2.5
        self.paint(box, mask, tissue, inside)

    def tube(
        self,
        points: Sequence[Triple] | NDArray[np.float64],
        radius: float | Sequence[float],
        layers: Layers,
        inside: Sequence[Tissue] = (Tissue.FAT,),
        sd: float = 3.0,
        *,
        rough: float = 0.0,
        waves: tuple[float, float] | None = None,
        placed: bool = False,
        within: bool = False,
    ) -> NDArray[np.float64]:
        """Paint a tube through jittered points; `layers` are (distance from wall below, tissue).

        `rough`: unevenness of the wall, mm. `waves`: (share of the radius, length in mm) of
        sacculations. `placed`: the points lie on the grid already. `within`: only in the cavity.
        Returns the path on the grid.
        """
        nodes = np.asarray(points, dtype=float)
        nodes = nodes + self.dice.rng.normal(0, sd, nodes.shape)
        if not placed:
            nodes = self.place(nodes)
        sizes = np.broadcast_to(np.asarray(radius, dtype=float), (len(nodes),))
        small = float(sizes.min())
        path = smooth_path(np.column_stack([nodes, sizes]), max(0.6 * small, 1.0))
        if waves is not None:
            along = np.concatenate(
                [[0], np.cumsum(np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1))]
            )
            start = self.dice.uniform(0, 2 * math.pi)
            swing = np.abs(np.sin(math.pi * along / waves[1] + start))
            path[:, 3] *= 1 - waves[0] + 1.5 * waves[0] * swing
        reach = max(3.0, layers[0][0] + 1.0) + rough
        box = path_box(self.grid, path[:, :3], float(path[:, 3].max()) + reach)
        if empty(box):
            return np.asarray(path[:, :3])
        distance = torch.full(self.labels[box].shape, 1e3, device=self.labels.device)
        paint_tube(distance, sub_grid(self.grid, box), path[:, :3], path[:, 3], reach)
        if rough:
            distance += rough * self.fine[box]
        mask = member(self.labels[box], [int(t) for t in inside])
        if within:
            mask &= self.inner[box] > 0.5
        for limit, tissue in layers:
            self.labels[box].masked_fill_(mask & (distance < limit), int(tissue))
        return np.asarray(path[:, :3])
