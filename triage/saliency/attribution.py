"""Why: signed attributions, from what the networks already computed.

Both branches draw a map of logits and pool it to their answer: each member of a slice ensemble one
of 7 x 7 places a slice, the volume net one at 3 mm. Grad-CAM (Selvaraju et al., ICCV 2017) has a
closed form there: the gradient's mean over places is the map's own weight of each channel times a
constant, so Grad-CAM is the map of logits without its bias. Nothing runs twice; tests hold it
against Captum's LayerGradCam.

The default attribution of a place is its fused logit: members' mean and volume net, weighted as in
the decision, the finer map counting twice. 0 is where an injury is as likely as not, red above.
What speaks against is bounded (exponential linear unit, Clevert et al., ICLR 2016) and stays in
the organs, or healthy tissue, which is nearly everything, would drown the rest. A study whose score
speaks for an injury has places that do. Measured: docs/SALIENCY.md.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor, nn

from triage.imaging.body import Slices
from triage.imaging.masks import box_of, grown
from triage.inference.networks import Networks
from triage.inference.score import Evidence, Looked, organ_mask
from triage.nets.volume_net import POOL, VolumeNet
from triage.types import TARGET_ORGANS, TARGETS, Anatomy, Target

REACH_MM = 15.0  # attribution counts this far around the organ: haematomas lie beside it
FINER = 2.0  # weight of the volume net's map: it sees 3 mm, a place of a slice is 20 mm and more
AGAINST = 0.15  # bound of what speaks against, in parts of the largest that speaks for
LEAST = 1.0  # logits that the strongest place of a suspected target speaks for it, at least
SUSPECTED = math.inf  # as `speaks_for`: a flag always has a place


@dataclass(frozen=True)
class Places:
    """Fused logits of the places around a target's organs, in a box of the working grid."""

    box: Slices
    organs: Tensor  # (X, Y, Z) bool
    near: Tensor  # (X, Y, Z) bool: what lies around the organs
    logits: Tensor  # (X, Y, Z)


class Branches(Protocol):
    """Explains the two branches of a decision, each up to a positive factor."""

    def slices(self, target: Target, looked: Looked) -> Tensor:
        """Signed attribution (S, h, w) of a view's slices, on the CPU."""
        ...

    def volume(self, target: Target) -> Tensor:
        """Signed attribution (X, Y, Z) at 3 mm in `Evidence.volume_box`, on the CPU."""
        ...


def explain(
    nets: Networks,
    evidence: Evidence,
    anatomy: Anatomy,
    target: Target,
    weights: tuple[float, float],
    branches: Branches | None = None,
    *,
    speaks_for: float = 0.0,
) -> MetaTensor:
    """Signed attribution of one target on the working grid: (1, X, Y, Z), within -1 and 1.

    `weights`: of the slice ensemble and of the volume net in the fused logit. `branches`: another
    way to explain them than by their maps. `speaks_for`: see `signed`.
    """
    if branches is None:
        places = place_logits(nets, evidence, anatomy, target, weights)
        return signed(places, anatomy, speaks_for=speaks_for)
    labels = anatomy.labels.as_tensor()[0]
    out = torch.zeros(labels.shape)
    found = surroundings(anatomy, target, evidence.tissue)
    if found is not None:
        box, _, near = found
        total = torch.zeros(near.shape)
        views = [v for v in evidence.looked.get(target, []) if v.slices]
        fields = [branches.slices(target, v) for v in views]
        # One scale for both kidneys: the healthy one must not look like the other.
        largest = max((float(f.abs().max()) for f in fields), default=0.0)
        for view, field in zip(views, fields, strict=True):
            if largest > 0:
                laid, _ = _on_slices(field / largest, view, box, anatomy)
                total += weights[0] * laid
        if weights[1] > 0 and evidence.volume_features is not None:
            laid, _ = _on_volume(branches.volume(target), evidence, box)
            total += weights[1] * _unit(laid)
        out[box] = _unit(total.masked_fill_(~near, 0.0))
    return MetaTensor(out[None], affine=anatomy.labels.affine)


def place_logits(
    nets: Networks,
    evidence: Evidence,
    anatomy: Anatomy,
    target: Target,
    weights: tuple[float, float],
) -> Places | None:
    """What the branches say of each place; None without the target's organs.

    Where one of them did not look, the other answers alone.
    """
    found = surroundings(anatomy, target, evidence.tissue)
    if found is None:
        return None
    box, organs, near = found
    total, seen = torch.zeros(near.shape), torch.zeros(near.shape)
    for view in (v for v in evidence.looked.get(target, []) if v.slices):
        laid, inside = _on_slices(slice_logits(nets, target, view), view, box, anatomy)
        new = inside & ((seen == 0) | (laid * weights[0] > total))  # views overlap: the stronger
        total = torch.where(new, laid * weights[0], total)
        seen = torch.where(inside, weights[0], seen)
    if weights[1] > 0 and evidence.volume_lesions is not None:
        lesions = volume_logits(evidence, target)
        laid, place = _on_volume(lesions, evidence, box)
        share = FINER * weights[1]
        total += share * laid
        if place is not None:
            seen[place] += share
    near = near & (seen > 0)  # a place that nobody looked at says nothing
    organs = organs & near
    return Places(box, organs, near, torch.where(seen > 0, total / seen.clamp_min(1e-9), 0.0))


def signed(places: Places | None, anatomy: Anatomy, *, speaks_for: float = 0.0) -> MetaTensor:
    """Fused logits as attribution (1, X, Y, Z), 0 away from the organs.

    1 is the strongest place, where that is a logit or more. `speaks_for`: log odds that the study's
    score adds to those of prevalence, `SUSPECTED` where it is flagged. Above 0 the strongest places
    speak for the injury, too, by as much and by `LEAST` logits at most: the branches may have found
    different places, each too weak alone.
    """
    out = torch.zeros(anatomy.labels.shape[1:])
    if places is not None and bool(places.near.any()):
        field = places.logits.masked_fill(~places.near, 0.0)
        strongest = float(places.logits[places.near].max())
        least = min(speaks_for, LEAST)
        if least > 0 and strongest < least:
            field = (field + least - strongest).masked_fill(~places.near, 0.0)
        field = torch.where(places.organs | (field > 0), field, 0.0)
        field = field / max(float(field.max()), 1.0)
        out[places.box] = torch.where(field > 0, field, AGAINST * (field / AGAINST).expm1())
    return MetaTensor(out[None], affine=anatomy.labels.affine)


def surroundings(
    anatomy: Anatomy, target: Target, tissue: Tensor | None
) -> tuple[Slices, Tensor, Tensor] | None:
    """The target's organs and their surroundings: a box, and both masks in it; None without organs.

    With `tissue` (X, Y, Z) only tissue counts as surroundings.
    """
    mask = organ_mask(anatomy, TARGET_ORGANS[target])
    reach = [round(REACH_MM / float(mm)) for mm in anatomy.labels.pixdim]
    box = box_of(mask, reach)
    if box is None:
        return None
    organs = mask[box]
    near = grown(organs, reach)
    return box, organs, near if tissue is None else near & tissue[box]


def _unit(field: Tensor) -> Tensor:
    peak = field.abs().max()
    return field / peak if float(peak) > 0 else field


def _on_slices(
    field: Tensor, looked: Looked, box: Slices, anatomy: Anatomy
) -> tuple[Tensor, Tensor]:
    """Values (S, h, w) of a view's slices in a box of the working grid, and where there are any."""
    half = looked.view.field_mm / 2 / float(anatomy.labels.pixdim[0])  # voxels
    x, y = (
        (centre - torch.arange(part.start, part.stop, dtype=torch.float32)) / half
        for centre, part in zip(looked.region.centre, box[:2], strict=True)
    )  # picture: column from x, row from y
    points = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)[None]  # (1, X, Y, 2)
    # A view's outermost half place is its own: nothing fades towards what it does not show.
    planes = F.grid_sample(
        field[None], points, mode="bilinear", padding_mode="border", align_corners=False
    )[0]  # (S, X, Y)
    shown = (points[0].abs() <= 1).all(-1)  # (X, Y)
    judged = torch.tensor(looked.slices)
    z = torch.arange(box[2].start, box[2].stop)
    inside = (z >= judged[0]) & (z <= judged[-1])  # edge slices are not repeated
    upper = torch.searchsorted(judged, z).clamp(0, len(judged) - 1)
    lower = (upper - 1).clamp_min(0)
    gap = (judged[upper] - judged[lower]).clamp_min(1)
    share = torch.where(judged[upper] == z, 1.0, (z - judged[lower]) / gap)
    share = share[:, None, None]  # slices between two judged ones are mixed
    mixed = planes[lower] * (1 - share) + planes[upper] * share  # (Z, X, Y)
    where = inside[:, None, None] & shown
    return (mixed * where).permute(1, 2, 0), where.permute(1, 2, 0)


@torch.no_grad()
def slice_logits(nets: Networks, target: Target, looked: Looked) -> Tensor:
    """Members' mean logit of each place of a view's slices (S, h', w'), on the CPU."""
    maps = looked.maps
    if maps is None:
        tails = nets.slices.of(target)
        maps = torch.stack([tail.map(tail.features(looked.features))[:, 0] for tail in tails])
    return maps.mean(0).float().cpu()


def volume_logits(evidence: Evidence, target: Target) -> Tensor:
    """Volume net's logit of a lesion in each place (X, Y, Z) at 3 mm, on the CPU."""
    if evidence.volume_lesions is None:
        raise ValueError("Expected evidence that the volume net has run")
    return evidence.volume_lesions[0, TARGETS.index(target)].detach().float().cpu()


def _on_volume(field: Tensor, evidence: Evidence, box: Slices) -> tuple[Tensor, Slices | None]:
    """Values (X, Y, Z) at 3 mm of the volume net's box in a box of the working grid.

    They are 0 beyond the part of that box which the net saw; that part comes second.
    """
    if evidence.volume_box is None:
        raise ValueError("Expected evidence that the volume net has run")
    out = torch.zeros([s.stop - s.start for s in box])
    used, fine, place = [], [], []  # of the field, of its finer copy, of `out`
    for part, wanted, pool in zip(evidence.volume_box, box, POOL, strict=True):
        low, high = max(part.start, wanted.start // pool), min(part.stop, -(-wanted.stop // pool))
        if low >= high:
            return out, None
        first, last = max(low * pool, wanted.start), min(high * pool, wanted.stop)
        start = max(low - 2, part.start)  # one place for smoothing, one for interpolating
        used.append(slice(start - part.start, min(high + 2, part.stop) - part.start))
        fine.append(slice(first - start * pool, last - start * pool))
        place.append(slice(first - wanted.start, last - wanted.start))
    # The grid of the transposed convolution is smoothed away.
    coarse = F.pad(field[tuple(used)][None, None], (1,) * 6, mode="replicate")
    smooth = F.avg_pool3d(coarse, 3, stride=1)
    laid = F.interpolate(smooth, scale_factor=POOL, mode="trilinear")[0, 0]
    shown = (place[0], place[1], place[2])
    out[shown] = laid[tuple(fine)]
    return out, shown


class _Heads(nn.Module):
    """The volume net from its finest features on: one study logit a target."""

    def __init__(self, net: VolumeNet, regions: Tensor) -> None:
        super().__init__()
        self.net, self.regions = net, regions
        self.features = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        study, _, _ = self.net.heads(self.features(x), self.regions)
        return study  # (1, 5)


def captum_volume_cam(net: VolumeNet, features: Tensor, regions: Tensor, target: int) -> Tensor:
    """Grad-CAM by gradients: features (1, C, X, Y, Z) -> (X, Y, Z), on the CPU."""
    from captum.attr import LayerGradCam

    heads = _Heads(net, regions)
    x = features.detach().clone().requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of missing hooks for tuples; harmless
        cam: Any = LayerGradCam(heads, heads.features).attribute(
            x, target=target, relu_attributions=False
        )
    out: Tensor = cam.detach()[0, 0].cpu()
    return out
