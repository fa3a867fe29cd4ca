"""Grad-CAM in closed form is Captum's Grad-CAM."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from captum.attr import LayerGradCam

from triage.inference.crops import VIEWS, Region
from triage.inference.score import Evidence, Looked
from triage.nets.slice_net import Tail
from triage.nets.volume_net import VolumeNet
from triage.saliency.attribution import captum_volume_cam, slice_logits, volume_logits
from triage.types import TARGETS, Target


def _same_up_to_a_factor(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one / one.abs().max(), other / other.abs().max(), atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pooling", ["mean", "lse"])
def test_of_a_slice_member(pooling: str) -> None:
    torch.manual_seed(0)
    tail = Tail(17, pooling=pooling).eval()
    features = torch.randn(2, 160, 7, 7)
    looked = Looked(
        VIEWS[Target.LIVER][0], Region((0, 0), 0, 4), [0, 2], features, torch.zeros(1, 2)
    )
    nets = SimpleNamespace(slices=SimpleNamespace(of=lambda target: [tail]))
    own = slice_logits(nets, Target.LIVER, looked)  # type: ignore[arg-type]
    own -= tail.classifier.bias.detach()
    x = features.clone().requires_grad_(True)
    cam = LayerGradCam(tail, tail.features[-1]).attribute(x, relu_attributions=False)
    for k in range(2):
        assert _same_up_to_a_factor(own[k], cam.detach()[k, 0])


def test_of_the_volume_net() -> None:
    torch.manual_seed(0)
    net = VolumeNet(4).eval()
    torch.nn.init.normal_(net.map.weight)
    regions = torch.zeros(1, 4, 16, 16, 12)
    regions[0, 0, 2:9, 3:14, 2:10] = 1
    regions[0, 1, 10:15, 3:14, 2:10] = 1
    features = torch.randn(1, 4, 16, 16, 12).abs()
    _, _, lesions = net.heads(features, regions)
    evidence = Evidence(volume_features=features, volume_regions=regions, volume_lesions=lesions)
    assert net.map.bias is not None
    for t in (Target.LIVER, Target.EXTRAVASATION):
        own = volume_logits(evidence, t) - net.map.bias[TARGETS.index(t)].detach()
        assert _same_up_to_a_factor(
            own, captum_volume_cam(net, features, regions, TARGETS.index(t))
        )
