"""Ways to train a slice network that `ablation` compares, and their networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monai.networks.nets import EfficientNetBN
from torch import Tensor, nn

from triage.nets.mobilenet_v2 import BLOCKS, FEATURE_CHANNELS, MobileNetV2, freeze_batch_norm
from triage.nets.slice_net import SIZE, blocks, pool_map
from triage.nets.weights import load_imagenet, padding_of
from triage.training.start import UNFROZEN, fit_input
from triage.types import TARGETS

PARAMETRIC, MIXED, AS_FEW = "parametric", "mixed", "mixed, as few"
GENTLE, FRESH = (2e-4, 1e-3), (1e-3, 1e-3)  # learning rates of body and head


@dataclass(frozen=True)
class Variant:
    """One way to train; fields that are not named are the baseline's."""

    name: str
    size: int = SIZE  # pixels
    body: bool = False  # a box around the body in place of the organ's crop
    unfrozen: str = "8"  # layers that learn, see `start.UNFROZEN`
    joint: bool = False  # one network, five outputs, slices as they come
    pooling: str = "lse"
    network: str = "mobilenet_v2"
    pretrained: bool = True
    persons: str = MIXED


VARIANTS = (
    Variant("baseline: organ crop, 224, balanced, 8 layers, soft maximum"),
    Variant("one joint network with five outputs, body box, mean, as published",
            body=True, joint=True, pooling="mean"),
    Variant("body box", body=True),
    Variant("mean in place of the soft maximum over the map", pooling="mean"),
    Variant("4 layers", unfrozen="4"),
    Variant("16 layers", unfrozen="16"),
    Variant("320 pixels", size=320),
    Variant("384 pixels", size=384),
    Variant("parametric persons only", persons=PARAMETRIC),
    Variant("mixed persons, as few as are parametric", persons=AS_FEW),
    Variant("all layers", unfrozen="all"),
    Variant("MobileNetV2 from random weights", unfrozen="all", pretrained=False),
    Variant("EfficientNet-B0 from random weights", unfrozen="all", pretrained=False,
            network="efficientnet-b0"),
)  # fmt: skip


class Upper(nn.Module):
    """What learns: the blocks above the frozen ones -> a logit an output, (B, outputs)."""

    def __init__(self, net: MobileNetV2, shared: int, outputs: int, pooling: str) -> None:
        super().__init__()
        self.body, self.pooling = blocks(net, shared, BLOCKS), pooling
        self.head = nn.Linear(FEATURE_CHANNELS, outputs)
        nn.init.normal_(self.head.weight, 0, 0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        places = self.head(self.body(x).permute(0, 2, 3, 1))  # (B, h, w, outputs)
        return pool_map(places.permute(0, 3, 1, 2), self.pooling)


class Other(nn.Module):
    """Another light network: pictures (B, 3, S, S) -> (B, outputs)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = EfficientNetBN("efficientnet-b0", False, num_classes=FEATURE_CHANNELS)
        self.head = nn.Linear(FEATURE_CHANNELS, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def networks(variant: Variant, weights: Path) -> tuple[nn.Module, Callable[[], Upper | Other]]:
    """The frozen blocks, and a maker of what learns above them."""
    outputs = len(TARGETS) if variant.joint else 1
    shared, layers = UNFROZEN[variant.unfrozen]

    def whole() -> MobileNetV2:
        net = MobileNetV2(num_classes=1, padding=padding_of(weights))
        if variant.pretrained:
            fit_input(net, load_imagenet(net, weights))
            freeze_batch_norm(net)
        return net

    def upper() -> Upper | Other:
        if variant.network != "mobilenet_v2":
            return Other(outputs)
        net = Upper(whole(), shared, outputs, variant.pooling)
        _freeze(net, layers)
        return net

    return blocks(whole(), 0, shared), upper


def _freeze(net: Upper, layers: int | None) -> None:
    """Only the last `layers` layers learn (None: all), the head among them."""
    convolutions = [m for m in net.body.modules() if isinstance(m, nn.Conv2d)]
    if layers is None:
        return
    for convolution in convolutions[: max(0, len(convolutions) + 1 - layers)]:
        convolution.requires_grad_(False)
