"""Patients as the volume net is trained on them: at 3 mm, with true or with found organs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from triage.files import write_atomic
from triage.inference.localise import localise
from triage.inference.score import VolumeInput, coarse_labels, volume_input
from triage.nets.localiser import Localiser
from triage.nets.volume_net import POOL, levels_of
from triage.training.cache import Entry
from triage.training.cases import grid_of
from triage.training.localiser import pool_hu
from triage.types import ORGAN_LABEL, TARGET_ORGANS, TARGETS, Organ, Target

SPOTS = 500  # places remembered of each lesion and each organ
MASKED = 0.3  # share of a voxel of 3 mm from which on it counts as lesion
FOUND = "found_organs.npy"  # organs at 3 mm as the localiser finds them, beside a patient's labels


def find_organs(entries: Sequence[Entry], net: Localiser, log: Callable[[str], None]) -> None:
    """Write the organs as the localiser finds them beside each patient that lacks them."""
    for i, entry in enumerate(entries):
        path = entry.folder / FOUND
        if not path.exists():
            labels = localise(net, grid_of(entry)).labels.as_tensor()[0]
            content = BytesIO()
            np.save(content, coarse_labels(labels).to(torch.uint8).numpy())
            write_atomic(path, content.getvalue())
        if (i + 1) % 20 == 0:
            log(f"organs of {i + 1} of {len(entries)} patients")


def organs_of(entry: Entry, found: bool) -> Tensor:
    """Organ labels (X, Y, Z) at 3 mm: the true ones, or those that the localiser finds.

    Measured: a net that had only seen true organs lost 0.1 of AUC for the spleen (0.99 to 0.89 on
    90 patients) when it was told where the localiser had found them.
    """
    if found:
        return torch.from_numpy(np.load(entry.folder / FOUND))
    return coarse_labels(torch.from_numpy(np.array(entry.labels[0])).permute(2, 1, 0)).contiguous()


class Case:
    """A patient on the grid of 3 mm; HU stay on disk. `found`: with the localiser's organs."""

    def __init__(self, entry: Entry, *, found: bool = False) -> None:
        self.entry = entry
        lesions = torch.from_numpy(np.array(entry.labels[1])).permute(2, 1, 0)  # (2X, 2Y, Z)
        self.organs = organs_of(entry, found)  # (X, Y, Z) uint8
        self.bits = torch.zeros_like(self.organs)  # bit t: lesion of target t
        self.lesion: dict[Target, NDArray[np.int16]] = {}  # places (n, 3)
        self.organ: dict[Target, NDArray[np.int16]] = {}
        hu = torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0).float()
        self.levels = levels_of(pool_hu(hu, POOL), self.organs)  # (5,)
        self.labelled = torch.tensor([float(self._judged(t)) for t in TARGETS])
        for t, target in enumerate(TARGETS):
            lesion = (lesions & (1 << t)) > 0
            if bool(lesion.any()):
                seen = pool_hu(lesion.float(), POOL) >= MASKED
                self.bits |= seen.to(torch.uint8) << t
                self.lesion[target] = _places(seen)
            self.organ[target] = _places(_any_of(self.organs, TARGET_ORGANS[target]))

    @property
    def mapped(self) -> bool:
        """Whether the place of every injury is known; without an injury it is."""
        return self.entry.masks_known or not any(self.entry.meta["grades"].values())

    def _judged(self, target: Target) -> bool:
        """Labelled, its organs known, and with contrast where it takes contrast."""
        return self.entry.labelled(target) and set(TARGET_ORGANS[target]) <= self.entry.known

    def spots(self, target: Target, positive: bool) -> NDArray[np.int16]:
        """Places to look at, (n, 3); none where this patient is no example of it."""
        t = TARGETS.index(target)
        if not self.labelled[t] or (self.entry.grade(target) > 0) != positive:
            return np.zeros((0, 3), np.int16)
        if positive and self.mapped:
            return self.lesion.get(target, np.zeros((0, 3), np.int16))
        return self.organ[target]


def cut_cube(case: Case, centre: NDArray[np.int_], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """HU (2S, 2S, S), organs and lesion bits (S, S, S) around a voxel; air and nothing outside."""
    source, pad = [], []
    for c, n in zip(centre, case.organs.shape, strict=True):
        low, high = int(c) - side // 2, int(c) - side // 2 + side
        cut = slice(min(max(low, 0), n), max(min(high, n), 0))
        source.append(cut)
        pad.append((cut.start - low, high - cut.stop))
    x, y, z = source
    fine = [slice(s.start * p, s.stop * p) for s, p in zip(source, POOL, strict=True)]
    hu = torch.from_numpy(np.array(case.entry.hu[fine[2], fine[1], fine[0]]))
    flat = [v for ends in reversed(pad) for v in ends]
    wide = [v * p for ends, p in zip(reversed(pad), reversed(POOL), strict=True) for v in ends]
    return (
        F.pad(hu.permute(2, 1, 0).float(), wide, value=-1000.0),
        F.pad(case.organs[x, y, z], flat),
        F.pad(case.bits[x, y, z], flat),
    )


def moved(regions: Tensor, by: NDArray[np.int_]) -> Tensor:
    """Region masks (4, S, S, S) moved by -1, 0 or 1 voxel an axis: a localiser errs by as much."""
    sides = regions.shape[1:]
    x, y, z = (slice(1 + int(d), 1 + int(d) + n) for d, n in zip(by, sides, strict=True))
    return F.pad(regions, [1] * 6)[:, x, y, z]


def _any_of(organs: Tensor, names: Sequence[Organ]) -> Tensor:
    return torch.stack([organs == ORGAN_LABEL[o] for o in names]).any(0)


def _places(mask: Tensor) -> NDArray[np.int16]:
    """At most `SPOTS` voxels of a mask, (n, 3), always the same ones."""
    found = mask.nonzero().numpy().astype(np.int16)
    return found[np.random.default_rng(0).permutation(len(found))[:SPOTS]]


def whole(entry: Entry, organs: Tensor) -> VolumeInput:
    """A whole patient as the net takes it; organs (X, Y, Z) at 3 mm."""
    return volume_input(torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0)[None], organs)
