"""The dear explanations, for those who ask: Captum on slices and volumes instead of logit maps.

Each explains the logit of a branch. What stands for "not there" - the baseline of Integrated
Gradients, what occlusion puts in place - is the same image, blurred over about 24 mm: a body
without detail and with the same contrast. Slices are explained where they carry the decision: the
strongest that are pooled, and their neighbours; the others are 0. Signs are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor, nn

from triage.imaging.body import Slices
from triage.imaging.masks import box_of
from triage.inference.crops import cut
from triage.inference.networks import Networks
from triage.inference.score import (
    TOP_SLICES,
    Evidence,
    Looked,
    coarse_labels,
    smoothed,
    volume_input,
)
from triage.nets.localiser import STRIDE
from triage.nets.volume_net import POOL, REACH, REGION_OF
from triage.saliency.attribution import captum_volume_cam
from triage.saliency.names import Method
from triage.types import TARGETS, Anatomy, Target

STEPS = 16  # of the path of Integrated Gradients
DRAWS = 8  # of Gradient SHAP
NOISE = 0.05  # its noise: of a picture's range of 2; in volumes of 200 HU
NOISE_HU = 10.0
WINDOW, STRIDE_PX = 28, 14  # pixels of a picture that occlusion takes away at once, and its step
CELL = (16, 16, 8)  # voxels of the working grid that it takes away at once: 24 mm
AROUND = REACH + 8  # voxels of 3 mm around a target's region that its piece of the volume has
POOLED = 4  # pixels of a picture in one place of its map
SEED = 20


class Captum:
    """Explains both branches of one series by `method`; see `attribution.Branches`.

    `grid`: HU (1, X, Y, Z) that the networks saw.
    """

    def __init__(
        self,
        nets: Networks,
        evidence: Evidence,
        grid: MetaTensor,
        anatomy: Anatomy,
        method: Method,
    ) -> None:
        self.nets, self.evidence, self.method = nets, evidence, method
        self.hu, self.labels = grid.as_tensor(), anatomy.labels.as_tensor()
        self.pixel = float(grid.pixdim[0])

    def slices(self, target: Target, looked: Looked) -> Tensor:
        """(S, h, w): what each place of each slice adds to the logit of the ensemble."""
        weights = carrying(looked.logits)  # (S,)
        where = weights.nonzero().flatten().tolist()
        if self.method is Method.GRADCAM:
            maps = self._gradcam(target, looked.features[where])
        else:
            pictures = cut(self.hu[0], [looked.slices[i] for i in where], looked.region.centre,
                           looked.view, self.pixel, size=self.nets.slices.size[target])  # fmt: skip
            net = _Pictures(self.nets, target)
            found = [self._of_picture(net, x[None].to(self.nets.device)) for x in pictures]
            maps = F.avg_pool2d(torch.cat(found), POOLED)
        out = torch.zeros(len(weights), *maps.shape[1:])
        out[where] = maps * weights[where][:, None, None]
        return out

    def _gradcam(self, target: Target, features: Tensor) -> Tensor:
        """Members' mean Layer Grad-CAM (S, h', w')."""
        from captum.attr import LayerGradCam

        x = features.detach().clone().requires_grad_(True)
        maps = []
        for tail in self.nets.slices.of(target):
            last = list(tail.features.children())[-1]
            cam: Any = LayerGradCam(tail, last).attribute(x, relu_attributions=False)
            maps.append(cam.detach()[:, 0])
        return torch.stack(maps).mean(0).cpu()

    def _of_picture(self, net: nn.Module, x: Tensor) -> Tensor:
        """(1, 3, s, s) -> (1, s, s); the slice's two neighbours (channels) count for the slice."""
        from captum.attr import Occlusion

        empty = blurred(x)
        if self.method is Method.OCCLUSION:
            with torch.no_grad():
                found: Any = Occlusion(net).attribute(
                    x,
                    sliding_window_shapes=(3, WINDOW, WINDOW),
                    strides=(3, STRIDE_PX, STRIDE_PX),
                    baselines=empty,
                    perturbations_per_eval=8,
                )
        else:
            found = self._by_gradients(net, x, empty, NOISE, STEPS)
        total: Tensor = found.detach().sum(1).cpu()
        return total

    def _by_gradients(
        self, net: nn.Module, x: Tensor, empty: Tensor, noise: float, together: int
    ) -> Tensor:
        """Integrated Gradients or Gradient SHAP of one input."""
        from captum.attr import GradientShap, IntegratedGradients

        if self.method is Method.INTEGRATED_GRADIENTS:
            found: Any = IntegratedGradients(net).attribute(
                x, baselines=empty, n_steps=STEPS, internal_batch_size=together
            )
            return found.detach()  # type: ignore[no-any-return]
        flat = empty.mean((2, 3) if x.ndim == 4 else (2, 3, 4), keepdim=True).expand_as(x)
        among = torch.cat([empty, (empty + flat) / 2])
        shap, total = GradientShap(net), torch.zeros_like(x)
        with _same_dice():
            for _ in range(DRAWS):  # one at a time: a whole abdomen fills the memory
                one: Any = shap.attribute(x, baselines=among, n_samples=1, stdevs=noise)
                total += one.detach() / DRAWS
        return total

    def volume(self, target: Target) -> Tensor:
        """(X, Y, Z) at 3 mm: what each place adds to the volume net's logit."""
        if self.method is Method.GRADCAM:
            features, regions = self.evidence.volume_features, self.evidence.volume_regions
            if features is None or regions is None:
                raise ValueError("Expected evidence that the volume net has run")
            return captum_volume_cam(self.nets.volume, features, regions, TARGETS.index(target))
        given = volume_input(self.hu, coarse_labels(self.labels[0]))
        out = torch.zeros(given.regions.shape[2:])
        piece = _piece(given.regions[0], target)
        if piece is None:
            return out
        x, y, z = piece
        fx, fy, fz = (slice(s.start * p, s.stop * p) for s, p in zip(piece, POOL, strict=True))
        device = self.nets.device
        hu = given.hu[..., fx, fy, fz].to(device)  # (1, 1, 2X, 2Y, Z)
        regions = given.regions[..., x, y, z].to(device)
        levels = given.levels.to(device)
        empty = blurred(hu)
        if self.method is Method.OCCLUSION:
            run = self._scored(regions, levels, TARGETS.index(target))
            near = _region(regions[0], target)
            found = _occluded(run, hu, empty, near)
        else:
            net = _Volume(self.nets, regions, levels, TARGETS.index(target))
            found = self._by_gradients(net, hu, empty, NOISE_HU, 1).cpu()
        out[piece] = F.avg_pool3d(found, POOL)[0, 0]
        return out

    def _scored(self, regions: Tensor, levels: Tensor, t: int) -> Callable[[Tensor], Tensor]:
        """The study logit of HU, by the engine: occlusion needs no gradients."""

        def run(hu: Tensor) -> Tensor:
            features = self.nets.programs.volume_features(hu, regions, levels)
            study, _, _ = self.nets.volume.heads(features, regions)
            return study[:, t].detach()

        return run


@contextmanager
def _same_dice() -> Iterator[None]:
    """Torch's and NumPy's global dice, which Captum throws, from one seed; put back afterwards."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        try:
            yield
        finally:
            np.random.set_state(before)


def carrying(logits: Tensor) -> Tensor:
    """Weight of each slice in the pooled logit: (members, S) -> (S,); see `score.pool_slices`."""
    mean = logits.detach().float().mean(0).clone().requires_grad_(True)
    with torch.enable_grad():
        smooth = smoothed(mean[None])
        smooth.topk(min(TOP_SLICES, len(smooth))).values.mean().backward()
    weights = mean.grad
    return torch.zeros_like(mean) if weights is None else weights


def blurred(x: Tensor) -> Tensor:
    """An image (B, C, ...) without detail: pictures over 28 pixels, volumes over `CELL`."""
    if x.ndim == 4:
        small = F.avg_pool2d(x, WINDOW, ceil_mode=True, count_include_pad=False)
        return F.interpolate(small, x.shape[2:], mode="bilinear")
    small = F.avg_pool3d(x, CELL, ceil_mode=True, count_include_pad=False)
    return F.interpolate(small, x.shape[2:], mode="trilinear")


class _Pictures(nn.Module):
    """Pictures (B, 3, s, s) -> the members' mean logit (B,)."""

    def __init__(self, nets: Networks, target: Target) -> None:
        super().__init__()
        self.nets, self.target = nets.slices, target

    def forward(self, x: Tensor) -> Tensor:
        features = self.nets.features(x, self.target)
        return torch.stack([tail(features) for tail in self.nets.of(self.target)]).mean(0)


class _Volume(nn.Module):
    """HU (B, 1, 2X, 2Y, Z) -> one target's study logit (B,)."""

    def __init__(self, nets: Networks, regions: Tensor, levels: Tensor, t: int) -> None:
        super().__init__()
        self.net, self.regions, self.levels, self.t = nets.volume, regions, levels, t

    def forward(self, hu: Tensor) -> Tensor:
        many = hu.shape[0]
        regions = self.regions.expand(many, -1, -1, -1, -1)
        study, _, _ = self.net(hu, regions, self.levels.expand(many, -1))
        out: Tensor = study[:, self.t]
        return out


def _region(regions: Tensor, target: Target) -> Tensor:
    """Mask (X, Y, Z) of a target's region of (4, X, Y, Z)."""
    own = REGION_OF.get(target)
    return (regions.amax(0) if own is None else regions[own]) > 0


def _piece(regions: Tensor, target: Target) -> Slices | None:
    """The box of a target's region and its surroundings, in steps of the network's stride."""
    box = box_of(_region(regions, target), (AROUND,) * 3)
    if box is None:
        return None
    x, y, z = (
        slice(s.start // STRIDE * STRIDE, min(-(-s.stop // STRIDE) * STRIDE, n))
        for s, n in zip(box, regions.shape[1:], strict=True)
    )
    return x, y, z


def _occluded(run: Callable[[Tensor], Tensor], hu: Tensor, empty: Tensor, region: Tensor) -> Tensor:
    """What taking away one cell after the other costs: (1, 1, 2X, 2Y, Z), on the CPU.

    `region`: (X, Y, Z) at 3 mm; cells far from it are left alone.
    """
    from captum.attr import FeatureAblation

    grown = F.max_pool3d(region[None, None].float(), 2 * REACH + 1, stride=1, padding=REACH)
    near = F.interpolate(grown, hu.shape[2:], mode="nearest") > 0  # (1, 1, 2X, 2Y, Z)
    axes = [torch.arange(n) // c for n, c in zip(hu.shape[2:], CELL, strict=True)]
    counts = [int(a[-1]) + 1 for a in axes]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    cells = ((x * counts[1] + y) * counts[2] + z + 1)[None, None].to(hu.device)
    _, ids = torch.unique(cells * near, return_inverse=True)  # 0: far from the region
    if not bool((~near).any()):
        ids = ids + 1
    with torch.no_grad():
        found: Any = FeatureAblation(run).attribute(hu, baselines=empty, feature_mask=ids)
    out: Tensor = (found * near).detach().cpu()
    return out
