"""Run the slice ensembles and the volume net on one localised series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor

from triage.imaging.masks import grown
from triage.inference.crops import VIEWS, Region, View, cut, judged_slices, region
from triage.inference.networks import Networks
from triage.inference.programs import BATCH
from triage.nets.localiser import LOW_HU, STRIDE, pad_to_stride
from triage.nets.volume_net import GRADED, POOL, levels_of, organ_channels
from triage.types import ORGAN_LABEL, TARGETS, Anatomy, Organ, Target, TargetScore

TOP_SLICES = 3  # the study logit of an ensemble is the mean of so many neighbouring-smoothed slices


@dataclass
class Looked:
    """What one view of one target saw: kept for the explanation, so that nothing runs twice."""

    view: View
    region: Region
    slices: list[int]
    features: Tensor  # (S, C, h, w) trunk features
    logits: Tensor  # (members, S)
    sequence: float | None = None  # study logit of the sequence head, where the bundle has one
    maps: Tensor | None = None  # (members, S, h', w') logit of each place


@dataclass
class Evidence:
    """Everything the networks computed on one series."""

    looked: dict[Target, list[Looked]] = field(default_factory=dict)
    tissue: Tensor | None = None  # (X, Y, Z) bool: not air, not lung; attribution stays in it
    volume_features: Tensor | None = None  # (1, C, X, Y, Z) finest features at 3 mm
    volume_regions: Tensor | None = None  # (1, 4, X, Y, Z) region masks
    volume_lesions: Tensor | None = None  # (1, 5, X, Y, Z) lesion logits
    volume_box: tuple[slice, slice, slice] | None = None  # in 3 mm voxels of the pooled grid
    volume_logits: Tensor | None = None  # (5,)
    grade_logits: Tensor | None = None  # (3,)


def smoothed(logits: Tensor) -> Tensor:
    """(members, S) -> (S,): members averaged, each slice weighed with its two neighbours."""
    mean = logits.mean(0)  # (S,)
    kernel = mean.new_tensor([0.25, 0.5, 0.25])[None, None]
    return F.conv1d(F.pad(mean[None, None], (1, 1), mode="replicate"), kernel)[0, 0]


def pool_slices(logits: Tensor) -> float:
    """Study logit from (members, S): members averaged, neighbours smoothed, strongest averaged."""
    smooth = smoothed(logits)
    return float(smooth.topk(min(TOP_SLICES, len(smooth))).values.mean())


@torch.no_grad()
def look_at_slices(
    nets: Networks, grid: MetaTensor, anatomy: Anatomy, targets: Sequence[Target] = TARGETS
) -> dict[Target, list[Looked]]:
    """Every target's views through the shared trunk and the target's members."""
    hu = grid.as_tensor()[0]  # (X, Y, Z)
    views = _views(nets, hu, anatomy.labels.as_tensor()[0], targets)
    features = _trunk_features(nets, hu, float(grid.pixdim[0]), views)
    out: dict[Target, list[Looked]] = {target: [] for target in targets}
    for seen, own in zip(views, features, strict=True):
        target = seen.target
        maps = nets.programs.maps(target, own)  # (members, S, h', w')
        logits = nets.programs.pooled(target, maps)  # (members, S)
        looked = Looked(seen.view, seen.region, seen.slices, own, logits.cpu(), maps=maps)
        if nets.sequence is not None and target in nets.sequence:
            z = heights(grid, seen.slices).to(nets.device)
            base = pool_slices(looked.logits)
            looked.sequence = nets.sequence.study(target, own, logits, z, base)
        out[target].append(looked)
    return out


class _Seen(NamedTuple):
    """A view of a target in this patient, and the slices that are judged in it."""

    target: Target
    view: View
    region: Region
    slices: list[int]


def _views(nets: Networks, hu: Tensor, labels: Tensor, targets: Sequence[Target]) -> list[_Seen]:
    """The views of trained targets whose organ was found."""
    regions: dict[tuple[Organ, ...], Region | None] = {}
    out = []
    for target in (t for t in targets if nets.slices.members[t]):
        for view in VIEWS[target]:
            if view.organs not in regions:
                regions[view.organs] = region(labels, hu, view)
            where = regions[view.organs]
            if where is not None:
                out.append(_Seen(target, view, where, judged_slices(where)))
    return out


def _trunk_features(
    nets: Networks, hu: Tensor, pixel: float, views: Sequence[_Seen]
) -> list[Tensor]:
    """Trunk features (S, C, h, w) of each view. Batches are filled across views and targets."""
    kinds = [(nets.slices.size[v.target], nets.slices.shared[v.target]) for v in views]
    out: list[list[Tensor]] = [[] for _ in views]
    for size, depth in dict.fromkeys(kinds):
        own = [i for i, kind in enumerate(kinds) if kind == (size, depth)]
        pairs = [(i, z) for i in own for z in views[i].slices]
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            parts = [(i, [z for _, z in part]) for i, part in groupby(batch, key=itemgetter(0))]
            x = [cut(hu, z, views[i].region.centre, views[i].view, pixel, size=size)
                 for i, z in parts]  # fmt: skip
            found = nets.programs.features(torch.cat(x), depth)  # (B, C, h, w)
            for (i, _), piece in zip(parts, found.split([len(z) for _, z in parts]), strict=True):
                out[i].append(piece)
    return [torch.cat(pieces) for pieces in out]


def heights(grid: MetaTensor, slices: Sequence[int]) -> Tensor:
    """RAS+ z in mm of slices of the working grid, (S,)."""
    origin, step = float(grid.affine[2, 3]), float(grid.affine[2, 2])
    return torch.tensor([origin + step * s for s in slices])


class VolumeInput(NamedTuple):
    """What the volume net takes, see `VolumeNet`, and its box in voxels of the 3 mm grid."""

    hu: Tensor  # (1, 1, 2X, 2Y, Z)
    regions: Tensor  # (1, 4, X, Y, Z)
    levels: Tensor  # (1, 5)
    box: tuple[slice, slice, slice]


def coarse_labels(labels: Tensor) -> Tensor:
    """Organ labels (X, Y, Z) of the working grid on that of 3 mm, (X/2, Y/2, Z)."""
    whole = [n // p * p for n, p in zip(labels.shape, POOL, strict=True)]
    return labels[: whole[0] : POOL[0], : whole[1] : POOL[1], : whole[2] : POOL[2]]


def volume_input(hu: Tensor, labels: Tensor) -> VolumeInput:
    """Crop to the organs. hu (1, X, Y, Z) on the working grid, labels of `coarse_labels`."""
    coarse = labels[None, None]  # (1, 1, X/2, Y/2, Z)
    shape = labels.shape
    seen = (labels > 0).nonzero()
    low = (seen.amin(0) - 6).clamp_min(0).tolist()
    high = (seen.amax(0) + 7).tolist()
    box = [slice(a, min(b, n)) for a, b, n in zip(low, high, shape, strict=True)]
    fine = [slice(s.start * p, s.stop * p) for s, p in zip(box, POOL, strict=True)]
    own = hu[None][..., fine[0], fine[1], fine[2]].float()  # (1, 1, 2X, 2Y, Z)
    organs = coarse[..., box[0], box[1], box[2]]  # (1, 1, X, Y, Z)
    levels = levels_of(F.avg_pool3d(own, POOL)[0, 0], organs[0, 0])
    strides = [STRIDE * p for p in POOL]
    pad = [v for n, m in zip(reversed(own.shape[2:]), reversed(strides), strict=True)
           for v in (0, -n % m)]  # fmt: skip
    return VolumeInput(
        F.pad(own, pad, value=LOW_HU),
        pad_to_stride(organ_channels(organs), value=0.0),
        levels[None],
        (box[0], box[1], box[2]),
    )


@torch.no_grad()
def gather(
    nets: Networks, grid: MetaTensor, anatomy: Anatomy, targets: Sequence[Target] = TARGETS
) -> Evidence:
    """Slices and volume of one series through all networks."""
    evidence = Evidence(look_at_slices(nets, grid, anatomy, targets), tissue_mask(grid))
    run_volume(nets, grid, anatomy, evidence)
    return evidence


@torch.no_grad()
def run_volume(nets: Networks, grid: MetaTensor, anatomy: Anatomy, evidence: Evidence) -> None:
    """Add the volume net's answers to the evidence."""
    hu, regions, levels, box = volume_input(
        grid.as_tensor(), coarse_labels(anatomy.labels.as_tensor()[0])
    )
    hu, regions, levels = (x.to(nets.device) for x in (hu, regions, levels))
    features = nets.programs.volume_features(hu, regions, levels)  # (1, C, X, Y, Z)
    study, grade, lesions = nets.volume.heads(features, regions)
    evidence.volume_features, evidence.volume_regions, evidence.volume_box = features, regions, box
    evidence.volume_lesions = lesions
    evidence.volume_logits, evidence.grade_logits = study[0].cpu(), grade[0].cpu()


def to_score(target: Target, evidence: Evidence, grid: MetaTensor) -> TargetScore | None:
    """The branches' logits for one target; None if no slice could be looked at.

    The ensemble's logit is the sequence head's where the bundle has one, else the pooled slices';
    `pooled` has the plain poolings in any case, for comparison.

    `fused` is left at the ensemble's logit: the fusion weights belong to the decision.
    """
    looked = [v for v in evidence.looked.get(target, []) if v.slices]
    if not looked:
        return None
    plain = [pool_slices(v.logits) for v in looked]
    pooled = [p if v.sequence is None else v.sequence for p, v in zip(plain, looked, strict=True)]
    best = max(range(len(pooled)), key=pooled.__getitem__)
    volume = None
    if evidence.volume_logits is not None:
        volume = float(evidence.volume_logits[TARGETS.index(target)])
    every = torch.cat([v.logits.mean(0) for v in looked])  # (S,)
    return TargetScore(
        target=target,
        fused=pooled[best],
        ensemble=pooled[best],
        volume=volume,
        slice_logits=torch.cat([v.logits for v in looked], 1),
        slice_z=torch.cat([heights(grid, v.slices) for v in looked]),
        side=_side(looked, pooled) if target is Target.KIDNEY else None,
        grade=_grade(target, evidence),
        pooled={"top": max(plain), "mean": float(every.mean()), "max": float(every.max())},
    )


def _side(looked: list[Looked], pooled: list[float]) -> str:
    names = ["right" if Organ.KIDNEY_RIGHT in v.view.organs else "left" for v in looked]
    if len(pooled) == 2 and min(pooled) > 0:
        return "both"
    return names[max(range(len(pooled)), key=pooled.__getitem__)]


def _grade(target: Target, evidence: Evidence) -> str | None:
    if target not in GRADED or evidence.grade_logits is None:
        return None
    return "high" if float(evidence.grade_logits[GRADED.index(target)]) > 0 else "low"


def tissue_mask(grid: MetaTensor) -> Tensor:
    """Voxels (X, Y, Z) of the working grid at or beside tissue (> -300 HU)."""
    return grown(grid.as_tensor()[0] > -300, (1, 1, 1))


def organ_mask(anatomy: Anatomy, organs: tuple[Organ, ...]) -> Tensor:
    """Mask (X, Y, Z) of organs on the working grid."""
    labels = anatomy.labels.as_tensor()[0]
    out = torch.zeros(labels.shape, dtype=torch.bool)
    for organ in organs:
        out |= labels == ORGAN_LABEL[organ]
    return out
