"""Why: signed attributions by Captum, from what the networks already computed.

Two maps are added, each weighted as its branch is in the decision:

- slice ensembles: Layer Grad-CAM (Selvaraju et al., ICCV 2017) on the last block of each member,
  from the cached trunk features, averaged over members, laid back onto the slices;
- volume net: Layer Grad-CAM on the features of its finest decoder stage, at 3 mm.

Signs are kept: positive speaks for the injury, negative against it. Nothing is rectified.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from monai.data import MetaTensor
from torch import Tensor, nn

from triage.inference.networks import Networks
from triage.inference.score import Evidence, Looked, organ_mask
from triage.nets.volume_net import POOL, VolumeNet
from triage.nets.volume_unet import VolumeUNet
from triage.types import TARGET_ORGANS, TARGETS, Anatomy, Target

REACH_MM = 15.0  # attribution counts this far around the organ: haematomas lie beside it


class _Heads(nn.Module):
    """The volume net from its finest features on: one study logit a target."""

    def __init__(self, net: VolumeNet | VolumeUNet, regions: Tensor) -> None:
        super().__init__()
        self.net, self.regions = net, regions
        self.features = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        study, _, _ = self.net.heads(self.features(x), self.regions)
        return study  # (1, 5)


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
    shape = tuple(anatomy.labels.shape[1:])
    total = torch.zeros(shape)
    for looked in evidence.looked.get(target, []):
        total += weights[0] * _slice_map(nets, target, looked, shape, anatomy)
    if weights[1] > 0 and evidence.volume_features is not None:
        total += weights[1] * _volume_map(nets, evidence, target, shape)
    near = _near(anatomy, target)
    if evidence.tissue is not None:
        near &= evidence.tissue
    total = torch.where(near, total, torch.zeros(()))
    peak = float(total.abs().max())
    return MetaTensor((total / peak if peak > 0 else total)[None], affine=anatomy.labels.affine)


def _near(anatomy: Anatomy, target: Target) -> Tensor:
    """The target's organs and their surroundings, (X, Y, Z)."""
    mask = organ_mask(anatomy, TARGET_ORGANS[target]).float()[None, None]
    for axis, spacing in enumerate(float(v) for v in anatomy.labels.pixdim):
        reach = round(REACH_MM / spacing)
        kernel, pad = [1, 1, 1], [0, 0, 0]
        kernel[axis], pad[axis] = 2 * reach + 1, reach
        mask = F.max_pool3d(mask, kernel, stride=1, padding=pad)
    return mask[0, 0] > 0


def _unit(field: Tensor) -> Tensor:
    peak = field.abs().max()
    return field / peak if float(peak) > 0 else field


def _cam(layer_cam: LayerGradCam, x: Tensor, target: int | None = None) -> Tensor:
    """Signed Grad-CAM of one input batch. Captum warns of missing hooks for tuples; harmless."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out: Any = layer_cam.attribute(x, target=target, relu_attributions=False)
    detached: Tensor = out.detach()
    return detached


def _slice_map(
    nets: Networks, target: Target, looked: Looked, shape: tuple[int, ...], anatomy: Anatomy
) -> Tensor:
    """Members' mean Grad-CAM of a view's slices on the working grid (X, Y, Z), peak 1."""
    maps = []
    for tail in nets.slices.of(target):
        x = looked.features.detach().clone().requires_grad_(True)
        maps.append(_cam(LayerGradCam(tail, tail.features[-1]), x))  # (S, 1, h, w)
    cam = torch.stack(maps).mean(0).cpu()  # (S, 1, h, w)
    out = torch.zeros(shape)
    pixel = float(anatomy.labels.pixdim[0])
    half = looked.view.field_mm / 2 / pixel
    x_axis = (looked.region.centre[0] - torch.arange(shape[0], dtype=torch.float32)) / half
    y_axis = (looked.region.centre[1] - torch.arange(shape[1], dtype=torch.float32)) / half
    gx, gy = torch.meshgrid(x_axis, y_axis, indexing="ij")  # picture: column from x, row from y
    points = torch.stack([gx, gy], -1)[None].expand(len(cam), -1, -1, -1)
    planes = F.grid_sample(cam, points, mode="bilinear", align_corners=False)[:, 0]  # (S, X, Y)
    for i, z in enumerate(looked.slices):
        out[:, :, z] = planes[i]
    for a, b in zip(looked.slices, looked.slices[1:], strict=False):
        for z in range(a + 1, b):  # slices between two judged ones
            share = (z - a) / (b - a)
            out[:, :, z] = (1 - share) * out[:, :, a] + share * out[:, :, b]
    return _unit(out)


def _volume_map(
    nets: Networks, evidence: Evidence, target: Target, shape: tuple[int, ...]
) -> Tensor:
    """Volume net's Grad-CAM on the working grid (X, Y, Z), peak 1."""
    features, regions, box = (
        evidence.volume_features,
        evidence.volume_regions,
        evidence.volume_box,
    )
    if features is None or regions is None or box is None:
        raise ValueError("Expected evidence that the volume net has run")
    heads = _Heads(nets.volume, regions)
    x = features.detach().clone().requires_grad_(True)
    cam = _cam(LayerGradCam(heads, heads.features), x, TARGETS.index(target))
    smooth = F.avg_pool3d(F.pad(cam, (1,) * 6, mode="replicate"), 3, stride=1)
    cam = smooth[0, 0].cpu()  # (x, y, z) at 3 mm, padded; the transposed convolution's grid is gone
    size = [s.stop - s.start for s in box]
    cam = cam[: size[0], : size[1], : size[2]]
    fine = [n * p for n, p in zip(size, POOL, strict=True)]
    cam = F.interpolate(cam[None, None], size=fine, mode="trilinear", align_corners=False)[0, 0]
    out = torch.zeros(shape)
    start = [s.start * p for s, p in zip(box, POOL, strict=True)]
    stop = [min(a + n, limit) for a, n, limit in zip(start, fine, shape, strict=True)]
    keep = [b - a for a, b in zip(start, stop, strict=True)]
    out[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]] = cam[
        : keep[0], : keep[1], : keep[2]
    ]
    return _unit(out)
