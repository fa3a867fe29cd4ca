"""Painting shapes into a label volume: rough ellipsoids and tubes, RAS+ mm."""

from __future__ import annotations

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
    paint_tube,
    rotation,
    smooth_noise,
    smooth_path,
)
from triage.simulate.scene import Person
from triage.simulate.tissues import Tissue


class Painter:
    """Paints shapes into a label volume through one random smooth deformation."""

    def __init__(self, grid: Grid, person: Person, dice: Dice) -> None:
        self.grid, self.person, self.dice = grid, person, dice
        self.labels = torch.zeros(grid.shape, dtype=torch.uint8)
        base = torch.meshgrid(*(grid.axis(d) for d in range(3)), indexing="ij")
        scale = (
            person.half_width / 148,
            person.half_depth / 105,
            person.stretch,
        )
        self.xyz = [
            b / s + dice.uniform(2.5, 5.0) * smooth_noise(dice, grid.shape, grid.spacing, 75)
            for b, s in zip(base, scale, strict=True)
        ]
        self.scale = np.asarray(scale)
        self.depth = torch.zeros(())  # of the trunk's wall, mm; set with the trunk
        self.texture = smooth_noise(dice, grid.shape, grid.spacing, 28)

    def jitter(self, point: tuple[float, float, float], sd: float = 4.0) -> NDArray[np.float64]:
        return np.asarray(point, dtype=float) + self.dice.rng.normal(0, sd, 3)

    def box(self, centre: NDArray[np.float64], radius: float) -> tuple[slice, slice, slice]:
        half = tuple((radius * 1.2 + 16) * float(s) for s in self.scale)
        return self.grid.box(tuple(centre * self.scale), half)

    def blob(
        self,
        tissue: Tissue,
        centre: NDArray[np.float64],
        radii: tuple[float, float, float],
        *,
        tilt: float = 6.0,
        rough: float = 0.12,
        inside: tuple[Tissue, ...] | None = None,
        below: Tensor | None = None,
    ) -> None:
        """Paint a rough ellipsoid; only over the tissues `inside`, only where `below` is true."""
        box = self.box(centre, max(radii))
        if empty(box):
            return
        xyz = (self.xyz[0][box], self.xyz[1][box], self.xyz[2][box])
        shape = ellipsoid(xyz, tuple(centre), radii, rotation(self.dice, tilt))
        mask = shape + rough * self.texture[box] < 1
        region = self.labels[box]
        if inside is not None:
            mask &= member(region, inside)
        if below is not None:
            mask &= below[box]
        region[mask] = int(tissue)

    def tube(
        self,
        points: Sequence[tuple[float, float, float]],
        radius: float | Sequence[float],
        layers: tuple[tuple[float, Tissue], ...],
        inside: tuple[Tissue, ...] = (Tissue.FAT,),
        sd: float = 3.0,
    ) -> NDArray[np.float64]:
        """Paint a tube through jittered points; `layers` are (distance from wall below, tissue)."""
        nodes = np.asarray([self.jitter(p, sd) for p in points]) * self.scale
        if not isinstance(radius, int | float):
            small = min(radius)
            nodes = np.column_stack([nodes, radius])
        else:
            small = radius
            nodes = np.column_stack([nodes, np.full(len(nodes), radius)])
        path = smooth_path(nodes, max(0.7 * small, 1.0))
        distance = np.full(self.grid.shape, 1e3, dtype=np.float32)
        paint_tube(distance, self.grid, path[:, :3], path[:, 3])
        field_ = torch.from_numpy(distance)
        mask = member(self.labels, inside)
        for limit, tissue in layers:
            self.labels[mask & (field_ < limit)] = int(tissue)
        return np.asarray(path[:, :3])
