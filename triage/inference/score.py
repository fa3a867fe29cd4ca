"""Run the slice ensembles and the volume net on one localised series."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor

from triage.inference.crops import VIEWS, Region, View, cut, judged_slices, region
from triage.inference.networks import Networks
from triage.nets.localiser import pad_to_stride, scale
from triage.nets.volume_net import GRADED, POOL, organ_channels
from triage.types import ORGAN_LABEL, TARGETS, Anatomy, Organ, Target, TargetScore

BATCH = 16
TOP_SLICES = 3  # the study logit of an ensemble is the mean of so many neighbouring-smoothed slices


@dataclass
class Looked:
    """What one view of one target saw: kept for the explanation, so that nothing runs twice."""

    view: View
    region: Region
    slices: list[int]
    features: Tensor  # (S, C, h, w) trunk features
    logits: Tensor  # (members, S)


@dataclass
class Evidence:
    """Everything the networks computed on one series."""

    looked: dict[Target, list[Looked]] = field(default_factory=dict)
    tissue: Tensor | None = None  # (X, Y, Z) bool: not air, not lung; attribution stays in it
    volume_features: Tensor | None = None  # (1, 13, X, Y, Z) finest features at 3 mm
    volume_regions: Tensor | None = None  # (1, 4, X, Y, Z) region masks
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
    nets: Networks, grid: MetaTensor, anatomy: Anatomy
) -> dict[Target, list[Looked]]:
    """Every target's views through the shared trunk and the target's members."""
    hu = grid.as_tensor()[0]  # (X, Y, Z)
    labels = anatomy.labels.as_tensor()[0]
    pixel = float(grid.pixdim[0])
    out: dict[Target, list[Looked]] = {}
    regions: dict[tuple[Organ, ...], Region | None] = {}
    for target in TARGETS:
        out[target] = []
        for view in VIEWS[target]:
            if view.organs not in regions:
                regions[view.organs] = region(labels, hu, view)
            where = regions[view.organs]
            if where is None:
                continue
            slices = judged_slices(where)
            pieces = []
            for i in range(0, len(slices), BATCH):
                x = cut(hu, slices[i : i + BATCH], where.centre, view, pixel)  # (B, 3, 224, 224)
                pieces.append(nets.slices.features(x.to(nets.device)))
            features = torch.cat(pieces)  # (S, C, h, w)
            logits = nets.slices.logits(target, features)  # (members, S)
            out[target].append(Looked(view, where, slices, features, logits.cpu()))
    return out


def volume_input(grid: MetaTensor, anatomy: Anatomy) -> tuple[Tensor, tuple[slice, slice, slice]]:
    """Input of the volume net (1, 5, X, Y, Z) at 3 mm, and its box in pooled voxels."""
    hu = F.avg_pool3d(grid.as_tensor()[None], POOL)  # (1, 1, X/2, Y/2, Z)
    labels = anatomy.labels.as_tensor()[None, :, :: POOL[0], :: POOL[1]]
    labels = labels[:, :, : hu.shape[2], : hu.shape[3]]
    seen = (labels[0, 0] > 0).nonzero()
    low = (seen.amin(0) - 6).clamp_min(0)
    high = seen.amax(0) + 7
    box = (
        slice(int(low[0]), min(int(high[0]), hu.shape[2])),
        slice(int(low[1]), min(int(high[1]), hu.shape[3])),
        slice(int(low[2]), min(int(high[2]), hu.shape[4])),
    )
    image = pad_to_stride(scale(hu[(..., *box)]))
    regions = pad_to_stride(organ_channels(labels[(..., *box)]), value=0.0)
    return torch.cat([image, regions], 1), box


@torch.no_grad()
def gather(nets: Networks, grid: MetaTensor, anatomy: Anatomy) -> Evidence:
    """Slices and volume of one series through all networks."""
    evidence = Evidence(look_at_slices(nets, grid, anatomy), tissue_mask(grid))
    run_volume(nets, grid, anatomy, evidence)
    return evidence


@torch.no_grad()
def run_volume(nets: Networks, grid: MetaTensor, anatomy: Anatomy, evidence: Evidence) -> None:
    """Add the volume net's answers to the evidence."""
    x, box = volume_input(grid, anatomy)
    x = x.to(nets.device)
    features = nets.volume.finest(x)  # (1, 13, X, Y, Z)
    study, grade, _ = nets.volume.heads(features, x[:, 1:])
    evidence.volume_features, evidence.volume_regions, evidence.volume_box = features, x[:, 1:], box
    evidence.volume_logits, evidence.grade_logits = study[0].cpu(), grade[0].cpu()


def to_score(target: Target, evidence: Evidence, grid: MetaTensor) -> TargetScore | None:
    """The branches' logits for one target; None if no slice could be looked at.

    `fused` is left at the ensemble's logit: the fusion weights belong to the decision.
    """
    looked = [v for v in evidence.looked.get(target, []) if v.slices]
    if not looked:
        return None
    pooled = [pool_slices(v.logits) for v in looked]
    best = max(range(len(pooled)), key=pooled.__getitem__)
    volume = None
    if evidence.volume_logits is not None:
        volume = float(evidence.volume_logits[TARGETS.index(target)])
    origin, step = float(grid.affine[2, 3]), float(grid.affine[2, 2])
    z = torch.tensor([origin + step * s for v in looked for s in v.slices])
    return TargetScore(
        target=target,
        fused=pooled[best],
        ensemble=pooled[best],
        volume=volume,
        slice_logits=torch.cat([v.logits for v in looked], 1),
        slice_z=z,
        side=_side(looked, pooled) if target is Target.KIDNEY else None,
        grade=_grade(target, evidence),
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
    dense = (grid.as_tensor()[None] > -300).float()  # (1, 1, X, Y, Z)
    return F.max_pool3d(dense, 3, stride=1, padding=1)[0, 0] > 0


def organ_mask(anatomy: Anatomy, organs: tuple[Organ, ...]) -> Tensor:
    """Mask (X, Y, Z) of organs on the working grid."""
    labels = anatomy.labels.as_tensor()[0]
    out = torch.zeros(labels.shape, dtype=torch.bool)
    for organ in organs:
        out |= labels == ORGAN_LABEL[organ]
    return out
