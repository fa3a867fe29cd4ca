"""Why: signed attributions, from what the networks already computed.

Two maps are added, each weighted as its branch is in the decision:

- slice ensembles: Grad-CAM (Selvaraju et al., ICCV 2017) on the last block of each member, averaged
  over members, laid back onto the slices;
- volume net: Grad-CAM on the features of its finest decoder stage, at 3 mm.

Where a map of logits is pooled into the answer, Grad-CAM has a closed form: the gradient's mean
over places is the map's own weight of each channel times a constant, so Grad-CAM is the map of
logits without its bias. That map was computed on the way to the answer; nothing runs twice. Tests
hold it against Captum's LayerGradCam, which does the work where there is no such map.

Signs are kept: positive speaks for the injury, negative against it. Nothing is rectified.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor, nn

from triage.imaging.body import Slices
from triage.imaging.masks import box_of, grown
from triage.inference.networks import Networks
from triage.inference.score import Evidence, Looked, organ_mask
from triage.nets.volume_net import POOL, VolumeNet
from triage.nets.volume_unet import VolumeUNet
from triage.types import TARGET_ORGANS, TARGETS, Anatomy, Target

REACH_MM = 15.0  # attribution counts this far around the organ: haematomas lie beside it


def explain(
    nets: Networks,
    evidence: Evidence,
    anatomy: Anatomy,
    target: Target,
    weights: tuple[float, float],
) -> MetaTensor:
    """Signed attribution of one target on the working grid: (1, X, Y, Z), largest magnitude 1.

    `weights`: of the slice ensemble and of the volume net in the fused logit.
    """
    labels = anatomy.labels.as_tensor()[0]
    out = torch.zeros(labels.shape)
    found = _near(anatomy, target, evidence.tissue)
    if found is not None:
        box, near = found
        total = torch.zeros(near.shape)
        for looked in evidence.looked.get(target, []):
            if looked.slices:
                total += weights[0] * _slice_map(nets, target, looked, box, anatomy)
        if weights[1] > 0 and evidence.volume_features is not None:
            total += weights[1] * _volume_map(nets, evidence, target, box)
        total = total.masked_fill_(~near, 0.0)
        peak = float(total.abs().max())
        out[box] = total / peak if peak > 0 else total
    return MetaTensor(out[None], affine=anatomy.labels.affine)


def _near(anatomy: Anatomy, target: Target, tissue: Tensor | None) -> tuple[Slices, Tensor] | None:
    """The target's organs and their surroundings: a box, and the mask in it; None without organs.

    With `tissue` (X, Y, Z) only tissue counts.
    """
    mask = organ_mask(anatomy, TARGET_ORGANS[target])
    reach = [round(REACH_MM / float(mm)) for mm in anatomy.labels.pixdim]
    box = box_of(mask, reach)
    if box is None:
        return None
    near = grown(mask[box], reach)
    return box, near if tissue is None else near & tissue[box]


def _unit(field: Tensor) -> Tensor:
    peak = field.abs().max()
    return field / peak if float(peak) > 0 else field


def _slice_map(
    nets: Networks, target: Target, looked: Looked, box: Slices, anatomy: Anatomy
) -> Tensor:
    """Members' mean Grad-CAM of a view's slices in a box of the working grid, peak 1."""
    cam = _unit(slice_cam(nets, target, looked))  # (S, h, w)
    half = looked.view.field_mm / 2 / float(anatomy.labels.pixdim[0])  # voxels
    x, y = (
        (centre - torch.arange(part.start, part.stop, dtype=torch.float32)) / half
        for centre, part in zip(looked.region.centre, box[:2], strict=True)
    )  # picture: column from x, row from y
    points = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)[None]  # (1, X, Y, 2)
    planes = F.grid_sample(cam[None], points, mode="bilinear", align_corners=False)[0]  # (S, X, Y)
    judged = torch.tensor(looked.slices)
    z = torch.arange(box[2].start, box[2].stop)
    inside = (z >= judged[0]) & (z <= judged[-1])  # edge slices are not repeated
    upper = torch.searchsorted(judged, z).clamp(0, len(judged) - 1)
    lower = (upper - 1).clamp_min(0)
    gap = (judged[upper] - judged[lower]).clamp_min(1)
    share = torch.where(judged[upper] == z, 1.0, (z - judged[lower]) / gap)
    share = share[:, None, None]  # slices between two judged ones are mixed
    mixed = planes[lower] * (1 - share) + planes[upper] * share
    return (mixed * inside[:, None, None]).permute(1, 2, 0)  # (X, Y, Z)


@torch.no_grad()
def slice_cam(nets: Networks, target: Target, looked: Looked) -> Tensor:
    """Members' mean Grad-CAM of a view's slices (S, h', w'), on the CPU: see the module's text."""
    tails = nets.slices.of(target)
    maps = looked.maps
    if maps is None:
        maps = torch.stack([tail.map(tail.features(looked.features))[:, 0] for tail in tails])
    bias = torch.stack([tail.classifier.bias[0] for tail in tails]).to(maps)
    return (maps - bias[:, None, None, None]).mean(0).cpu()


def _volume_map(nets: Networks, evidence: Evidence, target: Target, box: Slices) -> Tensor:
    """Volume net's Grad-CAM in a box of the working grid, peak 1."""
    if evidence.volume_box is None:
        raise ValueError("Expected evidence that the volume net has run")
    cam = volume_cam(nets, evidence, target)[None, None]
    # The grid of the transposed convolution is smoothed away.
    smooth = F.avg_pool3d(F.pad(cam, (1,) * 6, mode="replicate"), 3, stride=1)[0, 0]
    own = [s.stop - s.start for s in evidence.volume_box]
    smooth = _unit(smooth[: own[0], : own[1], : own[2]])  # the rest is padding
    out = torch.zeros([s.stop - s.start for s in box])
    source, place = [], []
    for part, wanted, pool in zip(evidence.volume_box, box, POOL, strict=True):
        low = max(part.start, wanted.start // pool)
        high = min(part.stop, -(-wanted.stop // pool))
        if low >= high:
            return out
        source.append(slice(max(low - 1, part.start), min(high + 1, part.stop)))
        place.append(slice(max(low * pool, wanted.start), min(high * pool, wanted.stop)))
    coarse = smooth[tuple(slice(s.start - b.start, s.stop - b.start)
                          for s, b in zip(source, evidence.volume_box, strict=True))]  # fmt: skip
    fine = F.interpolate(coarse[None, None], scale_factor=POOL, mode="trilinear")[0, 0]
    out[tuple(slice(p.start - w.start, p.stop - w.start)
              for p, w in zip(place, box, strict=True))] = fine[
        tuple(slice(p.start - s.start * f, p.stop - s.start * f)
              for p, s, f in zip(place, source, POOL, strict=True))]  # fmt: skip
    return out


def volume_cam(nets: Networks, evidence: Evidence, target: Target) -> Tensor:
    """Volume net's Grad-CAM of one target (X, Y, Z) at 3 mm, on the CPU, up to a positive factor.

    The study logit of a `VolumeNet` comes from means over the strongest places of its lesion map.
    """
    features, lesions = evidence.volume_features, evidence.volume_lesions
    regions, t = evidence.volume_regions, TARGETS.index(target)
    if features is None or regions is None:
        raise ValueError("Expected evidence that the volume net has run")
    if isinstance(nets.volume, VolumeNet) and lesions is not None:
        head, bias = nets.volume.study[t], nets.volume.map.bias
        if isinstance(head, nn.Linear) and bias is not None:
            sign = head.weight.sum().sign()
            return ((lesions[0, t] - bias[t]) * sign).detach().cpu()
    return captum_volume_cam(nets.volume, features, regions, t)


class _Heads(nn.Module):
    """The volume net from its finest features on: one study logit a target."""

    def __init__(self, net: VolumeNet | VolumeUNet, regions: Tensor) -> None:
        super().__init__()
        self.net, self.regions = net, regions
        self.features = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        study, _, _ = self.net.heads(self.features(x), self.regions)
        return study  # (1, 5)


def captum_volume_cam(
    net: VolumeNet | VolumeUNet, features: Tensor, regions: Tensor, target: int
) -> Tensor:
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
