"""Slices to train on: which there are, what they show, and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triage.imaging.windows import WINDOWS
from triage.inference.crops import VIEWS, Region, View, cut, judged_slices, points, region
from triage.nets.slice_net import ORGAN_CLASSES, SIZE
from triage.training.augment import SINGLE, coarse_dropout, grey_values, pose, sharpness
from triage.training.cache import SPACING, Entry
from triage.types import ORGAN_LABEL, TARGET_ORGANS, TARGETS, Organ, Phase, Target

# A slice shows a lesion if at least so many pixels of 1.5 mm are marked in it; a blush is small.
LESION_PIXELS = {t: 4 if t is Target.EXTRAVASATION else 14 for t in Target}
WHOLE_BODY = -1  # in place of a view's number: the square around the body
BODY_SHARE = 0.25  # of a volume's pictures: one network then serves volumes and single images
LEAST_VISIBLE = 0.25  # an organ counts as visible from this share of its largest area on
IMAGE_WINDOW = WINDOWS["soft_tissue"]  # what single images of 8 bits show


@dataclass(frozen=True)
class Sample:
    """One slice of one patient under one view.

    `visible`: share of the organ's largest area, where only the patient's label is known; what a
    positive slice is trained towards.
    """

    entry: int
    target: Target
    view: int
    slice: int
    centre: tuple[float, float]
    label: int
    visible: float = 1.0

    @property
    def truth(self) -> float:
        return self.label * self.visible


def samples_of(index: int, entry: Entry, targets: Sequence[Target] = TARGETS) -> list[Sample]:
    """Every judged slice of a series with its label, for the targets that are labelled.

    Where lesion masks are known, a slice is positive if it shows enough of the lesion. Else the
    instances named in image_level_labels.csv, else patient label x organ visibility. Slices in
    between are left out.
    """
    own = [t for t in targets if t.value in entry.meta["grades"]]
    if entry.phase is Phase.PLAIN:
        own = [t for t in own if t is not Target.EXTRAVASATION]
    if not entry.is_volume:
        return [s for t in own for s in _image_samples(index, entry, t)]
    labels = torch.from_numpy(np.array(entry.labels)).permute(0, 3, 2, 1).contiguous()
    hu = torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0).contiguous()
    out = []
    found: dict[tuple[Organ, ...], Region | None] = {}
    for target in own:
        for v, view in enumerate(VIEWS[target]):
            if view.organs not in found:
                found[view.organs] = region(labels[0], hu, view)
            where = found[view.organs]
            if where is None or not set(view.organs) <= entry.known:
                continue
            for z, label, visible in _judged(entry, target, view, labels, where):
                out.append(Sample(index, target, v, z, where.centre, label, visible))
    return out


Judged = list[tuple[int, int, float]]  # slice, label, visibility


def _judged(entry: Entry, target: Target, view: View, labels: Tensor, where: Region) -> Judged:
    slices = judged_slices(where)
    if not entry.grade(target):
        return [(z, 0, 1.0) for z in slices]
    if entry.masks_known:
        return _by_mask(target, view, labels, slices)
    if shown := entry.meta.get("shows", {}).get(target.value):
        return _by_instance(shown, slices)
    return _by_visibility(target, view, labels[0], slices)


def _by_mask(target: Target, view: View, labels: Tensor, slices: Sequence[int]) -> Judged:
    lesion = (labels[1] & (1 << TARGETS.index(target))) > 0  # (X, Y, Z)
    seen = _own_side(lesion, labels[0], view) if bool(lesion.any()) else lesion
    area = F.max_pool1d(seen.float().sum((0, 1))[None, None], 3, 1, 1)[0, 0]
    least = LESION_PIXELS[target]
    return [(z, int(area[z] >= least), 1.0) for z in slices if area[z] == 0 or area[z] >= least]


def _by_instance(shown: Sequence[int], slices: Sequence[int]) -> Judged:
    """Slices at a marked height are positive; those beside are left out, others negative."""
    away = {z: min(abs(z - s) for s in shown) for z in slices}
    return [(z, int(n <= 1), 1.0) for z, n in away.items() if n <= 1 or n > 3]


def _by_visibility(target: Target, view: View, organs: Tensor, slices: Sequence[int]) -> Judged:
    """The patient's label on every slice that shows the organ; a bleed may be anywhere."""
    wanted = view.organs or TARGET_ORGANS[target]
    mask = torch.zeros_like(organs, dtype=torch.bool)
    for organ in wanted:
        mask |= organs == ORGAN_LABEL[organ]
    area = mask.float().sum((0, 1))  # (Z,)
    if target is Target.EXTRAVASATION:
        area = (area > 0).float()
    share = area / area.max().clamp_min(1)
    return [(z, 1, float(share[z])) for z in slices if share[z] >= LEAST_VISIBLE]


def _image_samples(index: int, entry: Entry, target: Target) -> list[Sample]:
    """Single images: no organ is known; the patient's label goes to all, unless some are named."""
    x, y, _ = entry.body
    label = int(entry.grade(target) > 0)
    shown = entry.meta.get("shows", {}).get(target.value, ()) if label else ()
    slices = range(entry.hu.shape[0])
    return [
        Sample(index, target, WHOLE_BODY, z, (x, y), int(z in shown) if shown else label)
        for z in slices
    ]


def _own_side(lesion: Tensor, organs: Tensor, view: View) -> Tensor:
    """Kidney lesions of the view's own side: on its half of the body, seen from the spine."""
    if view.organs not in ((Organ.KIDNEY_RIGHT,), (Organ.KIDNEY_LEFT,)):
        return lesion
    spine = (organs == ORGAN_LABEL[Organ.SPINE]).nonzero()
    both = (organs == ORGAN_LABEL[Organ.KIDNEY_RIGHT]) | (organs == ORGAN_LABEL[Organ.KIDNEY_LEFT])
    points = spine if len(spine) else both.nonzero()
    middle = int(points[:, 0].float().mean()) if len(points) else organs.shape[0] // 2
    out = lesion.clone()
    if view.organs == (Organ.KIDNEY_RIGHT,):
        out[:middle] = 0
    else:
        out[middle:] = 0
    return out


def whole_body(entry: Entry, target: Target) -> tuple[View, tuple[float, float]]:
    """The square around the body as a view, and its centre (x, y) in voxels."""
    x, y, side = entry.body
    pixel = SPACING[0] if entry.is_volume else 1.0
    return View(side * pixel, (), VIEWS[target][0].high_hu), (x, y)


@dataclass(frozen=True)
class Cut:
    """Where a picture was cut from its slice: centre in voxels, side in mm, turn in radians."""

    centre: tuple[float, float]
    field_mm: float
    turn: float
    pixel_mm: float


def picture(
    entry: Entry, sample: Sample, rng: np.random.Generator | None, size: int = SIZE
) -> Tensor:
    """The sample's picture (3, size, size), augmented where a generator is given."""
    return pictured(entry, sample, rng, size)[0]


def pictured(
    entry: Entry,
    sample: Sample,
    rng: np.random.Generator | None,
    size: int = SIZE,
    body_share: float = BODY_SHARE,
) -> tuple[Tensor, Cut]:
    """As `picture`, and where it was cut."""
    pixel = SPACING[0] if entry.is_volume else 1.0
    body = sample.view == WHOLE_BODY or (rng is not None and rng.random() < body_share)
    if body:
        view, centre = whole_body(entry, sample.target)
    else:
        view, centre = VIEWS[sample.target][sample.view], sample.centre
    planes = _planes(entry, sample.slice)  # (X, Y, 3)
    if body and entry.is_volume:
        planes = planes.clamp(IMAGE_WINDOW.low, IMAGE_WINDOW.high)
    if rng is None:
        x = cut(planes, [1], centre, view, pixel, size=size)[0]
        return x, Cut(centre, view.field_mm, 0.0, pixel)
    moved, mm = pose(rng), view.field_mm / VIEWS[sample.target][0].field_mm if body else 1.0
    centre = (
        centre[0] + moved.shift_mm[0] * mm / pixel,
        centre[1] + moved.shift_mm[1] * mm / pixel,
    )
    grey = sharpness(grey_values(planes, rng), rng)
    x = cut(grey, [1], centre, view, pixel, zoom=moved.zoom, turn=moved.turn, size=size)[0]
    if rng.random() < (0.5 if body else SINGLE):
        x = x[1:2].expand(3, -1, -1).clone()
    return coarse_dropout(x, rng), Cut(centre, view.field_mm * moved.zoom, moved.turn, pixel)


PROBE = 2  # pixels between the points at which a picture's truth is read: 3 mm at most


def truth_maps(entry: Entry, z: int, where: Cut, size: int, cell: int) -> tuple[Tensor, Tensor]:
    """What the cells of a picture show, `cell` pixels a side.

    -> lesions (5, size/cell, size/cell) in {0, 1}, in the slice or its neighbours; organs (8, ...),
    share of each label.
    """
    x, y = points(where.centre, where.field_mm / where.pixel_mm, where.turn, size // PROBE)
    labels = entry.labels  # (2, Z, Y, X)
    near = slice(max(z - 1, 0), z + 2)
    flat = np.concatenate([labels[0, z : z + 1], labels[1, near]])  # (2 .. 4, Y, X)
    found = torch.from_numpy(flat).permute(0, 2, 1)  # (.., X, Y)
    nx, ny = found.shape[1:]
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    ix, iy = x.round().long().clamp(0, nx - 1), y.round().long().clamp(0, ny - 1)
    seen = torch.where(inside, found[:, ix, iy], torch.zeros((), dtype=torch.uint8))
    organs = F.one_hot(seen[0].long(), ORGAN_CLASSES).permute(2, 0, 1).float()
    bits = torch.zeros_like(seen[1])
    for plane in seen[1:]:
        bits |= plane
    lesions = torch.stack([((bits >> t) & 1).float() for t in range(len(TARGETS))])
    step = cell // PROBE
    return F.max_pool2d(lesions, step), F.avg_pool2d(organs, step)


def _planes(entry: Entry, z: int) -> Tensor:
    """The slice between its neighbours: HU (X, Y, 3). Single images have no neighbours."""
    hu = entry.hu
    near = (z - 1, z, z + 1) if entry.is_volume else (z, z, z)
    stack = np.stack([hu[min(max(i, 0), hu.shape[0] - 1)] for i in near])
    return torch.from_numpy(stack).permute(2, 1, 0).float()
