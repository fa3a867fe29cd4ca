"""What is trained: the orientation from cubes, the region and level from slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triage.imaging.coarse import AIR, COARSE_MM, CUBE, CUBE_MM, SIDE, channels, windowed
from triage.imaging.turns import FRONT_BACK, HEAD_FOOT, LEFT_RIGHT, TURNS
from triage.nets.quality_nets import LEVELS, REGIONS, OrientationNet, RegionNet, level_of
from triage.training.checkpoint import read
from triage.training.loop import Group, Parts, Task, generator
from triage.training.pose import limbs
from triage.training.pose.people import CHEST, HEAD, THIGH, Person

HARD = (LEFT_RIGHT, FRONT_BACK, HEAD_FOOT)
OTHERS = [t for t in TURNS[1:] if t not in HARD]
ASKED = 8  # turns of a cube in a training step; the first is the right one
LEAST_MM = 70.0  # shortest piece of a scan that is asked for


class OrientationTask(Task[Tensor, Tensor]):
    """Which of eight turns of a cube is the right one; mirrors are always among them."""

    name = "orientation"

    def __init__(
        self,
        people: Sequence[Person],
        held_out: Sequence[Person] = (),
        init: Path | None = None,
    ) -> None:
        self.people = [p for p in people if is_trunk(p)]
        self.held_out = [p for p in held_out if is_trunk(p)]
        self.net: OrientationNet = OrientationNet()
        if init is not None:
            self.net.load_state_dict(read(init)["net"])

    def groups(self) -> list[Group]:
        return [Group(list(self.net.parameters()), 3e-3, 1e-3)]

    def sample(self, i: int, rng: np.random.Generator) -> Tensor:
        person = self.people[int(rng.integers(len(self.people)))]
        x = random_cube(person, rng)  # (3, 44, 44, 44)
        chosen = rng.choice(len(OTHERS), ASKED - 1 - len(HARD), replace=False)
        turns = [*HARD, *(OTHERS[int(k)] for k in chosen)]
        return torch.stack([x, *(t.apply(x) for t in turns)])  # (8, 3, 44, 44, 44)

    def collate(self, items: list[Tensor]) -> Tensor:
        return torch.cat(items)

    def loss(self, net: nn.Module, batch: Tensor) -> tuple[Tensor, Parts]:
        score = net(batch).view(-1, ASKED)
        right = torch.zeros(len(score), dtype=torch.long, device=score.device)
        figures: Parts = {"right": (score.argmax(1) == 0).float().mean()}
        return F.cross_entropy(score, right), figures

    def validate(self, net: nn.Module) -> dict[str, float]:
        right, mirror = 0, 0
        for k, person in enumerate(self.held_out):
            x = random_cube(person, np.random.default_rng((5, k)))
            scores = torch.cat(
                [
                    net(torch.stack([t.apply(x) for t in TURNS[i : i + 16]])).float()
                    for i in (0, 16, 32)
                ]
            )
            right += int(scores.argmax() == 0)
            mirror += int(scores[TURNS.index(LEFT_RIGHT)] > scores[0])
        n = max(1, len(self.held_out))
        return {"score": right / n, "mirror_errors": mirror / n}


def is_trunk(person: Person) -> bool:
    """Enough abdomen for the question which way round it is."""
    return bool((person.region == REGIONS.index("abdomen")).sum() * COARSE_MM[2] >= LEAST_MM)


def random_cube(person: Person, rng: np.random.Generator) -> Tensor:
    """A cube of a random piece of a person: bent scale, tilt, contrast, noise, field of view."""
    hu = person.hu
    if rng.random() < 0.7:
        inner = np.flatnonzero(person.region == REGIONS.index("abdomen"))
        n = hu.shape[2]
        least = min(n, round(LEAST_MM / COARSE_MM[2]))
        length = int(rng.integers(least, n + 1))
        # at least half of the least length shows abdomen
        first = max(0, int(inner[0]) + least // 2 - length)
        last = min(n - length, int(inner[-1]) - least // 2)
        z = int(rng.integers(first, max(first, last) + 1))
        hu = hu[:, :, z : z + length]
    v = torch.from_numpy(np.ascontiguousarray(hu)).float()
    if rng.random() < 0.3:  # field of view
        c = int(rng.integers(0, 9))
        v = v[c : v.shape[0] - c, c : v.shape[1] - c]
    scale = np.exp(rng.normal(0, 0.07)) * np.exp(rng.normal(0, 0.04, 3))
    v = _sampled(v, scale, rng)
    v = torch.where(v > -300, v * float(rng.uniform(0.85, 1.15)) + float(rng.normal(0, 12)), v)
    v = v + torch.randn(v.shape, generator=generator(rng)) * float(rng.uniform(0, 20))
    return channels(v)


def _sampled(v: Tensor, scale: np.ndarray, rng: np.random.Generator) -> Tensor:
    """(x, y, z) on the coarse grid -> (44, 44, 44) of 9 mm around the body, tilted a little."""
    v = F.avg_pool3d(v[None, None], (2, 2, 1))[0, 0]
    spacing = np.array([9.0, 9.0, COARSE_MM[2]])
    body = (v > -300).float()
    middle = []
    for axis, n in enumerate(v.shape):
        line = body.sum([d for d in range(3) if d != axis])
        middle.append(float((line * torch.arange(n)).sum() / line.sum().clamp_min(1)))
    turn = _tilt(np.radians(rng.normal(0, 5, 3)))
    line = (torch.arange(CUBE, dtype=torch.float32) - (CUBE - 1) / 2) * CUBE_MM
    x, y, z = torch.meshgrid(line, line, line, indexing="ij")
    points = torch.stack([x, y, z], -1) @ torch.tensor(turn, dtype=torch.float32)  # mm
    points = points / torch.tensor(spacing * scale, dtype=torch.float32)
    points = points + torch.tensor(middle) + torch.tensor(rng.normal(0, 0.7, 3)).float()
    size = torch.tensor(v.shape, dtype=torch.float32)
    where = ((points + 0.5) / size * 2 - 1).flip(-1)  # grid_sample wants z, y, x
    out = F.grid_sample(v[None, None] - AIR, where[None], align_corners=False)[0, 0]
    return out + AIR


def _tilt(angles: np.ndarray) -> np.ndarray:
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [d for d in range(3) if d != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        out = out @ turn
    return out


Slice = tuple[Tensor, int, float, np.random.Generator]  # HU (96, 96), region, level, dice
SliceBatch = tuple[Tensor, Tensor, Tensor]  # (B, 1, 96, 96), region (B,), level (B,)
SHARES = (0.08, 0.27, 0.31, 0.18, 0.16)  # of the regions in a batch
SHOULDERS = 0.25  # part of the chests with shoulders and lung apices
SICK = 0.5  # part of the chests with effusion or consolidation: injured people have them
DRAWN = 0.85  # part of the thighs that is drawn; the rest comes from label maps


class RegionTask(Task[Slice, SliceBatch]):
    """Region and level of single slices, as the regions are or as pictures in eight turns."""

    name = "region"

    def __init__(self, people: Sequence[Person], init: Path | None = None) -> None:
        self.net: RegionNet = RegionNet()
        if init is not None:
            self.net.load_state_dict(read(init)["net"])
        self.people = people
        self.where = _by_region(people)

    def groups(self) -> list[Group]:
        return [Group(list(self.net.parameters()), 2e-3, 1e-3)]

    def sample(self, i: int, rng: np.random.Generator) -> Slice:
        region = int(rng.choice(len(REGIONS), p=SHARES))
        if region == HEAD:
            return _tensor(limbs.head(rng)), region, float("nan"), rng
        if region == THIGH and rng.random() < DRAWN:
            return _tensor(limbs.thighs(rng)), region, float("nan"), rng
        groups = self.where[region]  # by anatomy: a person seen often counts no more
        found = groups[int(rng.integers(len(groups)))]
        if region == CHEST and rng.random() < SHOULDERS:
            found = [(k, z) for k, z in found if self.people[k].level[z] < 4] or found
        k, z = found[int(rng.integers(len(found)))]
        person = self.people[k]
        hu = _middle(torch.from_numpy(person.hu[:, :, z].astype(np.float32)))
        if region == CHEST and rng.random() < SICK:
            limbs.sick_chest(hu.numpy(), rng)
        if rng.random() < 0.25:
            limbs.hands(hu.numpy(), rng)
        return hu, region, float(person.level[z]), rng

    def collate(self, items: list[Slice]) -> SliceBatch:
        hu = torch.stack([item[0] for item in items])[:, None]  # (B, 1, 96, 96)
        rngs = [item[3] for item in items]
        x = torch.stack([_seen(h, rng) for h, rng in zip(_moved(hu, rngs), rngs, strict=True)])
        region = torch.tensor([item[1] for item in items])
        return x, region, torch.tensor([item[2] for item in items])

    def loss(self, net: nn.Module, batch: SliceBatch) -> tuple[Tensor, Parts]:
        x, region, level = batch
        regions, levels = net(x)
        named = F.cross_entropy(regions, region, label_smoothing=0.05)
        known = level.isfinite()
        wanted = level.nan_to_num().clamp(0, LEVELS - 1)
        at = torch.arange(LEVELS, device=level.device)
        soft = (-0.5 * ((at[None] - wanted[:, None]) / 0.6).square()).softmax(1)  # (B, 25)
        each = -(soft * levels.float().log_softmax(1)).sum(1)
        placed = (each * known).sum() / known.sum().clamp_min(1)
        off = ((level_of(levels.float())[0] - wanted).abs() * known).sum() / known.sum().clamp_min(
            1
        )
        figures: Parts = {"right": (regions.argmax(1) == region).float().mean(), "level": off}
        return named + 0.7 * placed, figures


def _by_region(people: Sequence[Person]) -> dict[int, list[list[tuple[int, int]]]]:
    """region -> groups of (person, slice): one an anatomy from a file, one for all the others."""
    out: dict[int, dict[str, list[tuple[int, int]]]] = {}
    for k, person in enumerate(people):
        for z, region in enumerate(person.region):
            if region >= 0:
                out.setdefault(int(region), {}).setdefault(person.anatomy, []).append((k, z))
    return {region: list(groups.values()) for region, groups in out.items()}


def _tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture)


def _middle(hu: Tensor) -> Tensor:
    """(X, Y) cut or filled to (96, 96) around the field of view's middle."""
    out = torch.full((SIDE, SIDE), AIR)
    into, taken = [], []
    for n in hu.shape:
        low = (n - SIDE) // 2
        start, stop = max(low, 0), min(low + SIDE, n)
        taken.append(slice(start, stop))
        into.append(slice(start - low, stop - low))
    out[into[0], into[1]] = hu[taken[0], taken[1]]
    return out


def _moved(hu: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Scale, turn, shift, mirror (B, 1, 96, 96)."""
    theta = []
    for rng in rngs:
        angle = np.radians(rng.normal(0, 7))
        if rng.random() < 0.15:
            angle += np.pi / 2 * int(rng.integers(1, 4))
        scale = np.exp(rng.normal(0, 0.13)) * np.exp(rng.normal(0, 0.05, 2))
        mirror = np.array([1.0, -1.0 if rng.random() < 0.5 else 1.0])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        theta.append(np.concatenate([turn * (mirror / scale), rng.normal(0, 0.1, (2, 1))], 1))
    grid = F.affine_grid(
        torch.tensor(np.array(theta), dtype=torch.float32), list(hu.shape), align_corners=False
    )
    return F.grid_sample(hu - AIR, grid, align_corners=False) + AIR


def _seen(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """One slice (1, 96, 96) as a scanner and a window show it, [-1, 1]."""
    dice = generator(rng)
    hu = torch.where(hu > -300, hu * float(rng.uniform(0.85, 1.15)) + float(rng.normal(0, 12)), hu)
    hu = hu + torch.randn(hu.shape, generator=dice) * float(rng.uniform(0, 25))
    x = windowed(hu * float(rng.uniform(0.85, 1.2)) + float(rng.normal(0, 15)))
    if rng.random() < 0.25:  # field of view
        r = float(rng.uniform(32, 50))
        axis = torch.arange(SIDE) - (SIDE - 1) / 2
        x = torch.where(axis[:, None] ** 2 + axis**2 > r * r, -1.0, x)
    return x
