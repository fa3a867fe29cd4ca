"""MobileNetV2 (Sandler et al., CVPR 2018, arXiv:1801.04381) with torchvision's parameter names.

Written here because torchvision has no build beside CPU torch; its `IMAGENET1K` weights and the
TensorFlow-trained ones load as they are (see `weights.load_imagenet`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

Padding = Literal["same", "symmetric"]

# Table 2 of the paper: expansion t, output channels c, repeats n, stride s of the first repeat.
STAGES: tuple[tuple[int, int, int, int], ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS = 32
FEATURE_CHANNELS = 1280
BLOCKS = 19  # stem, 17 inverted residuals, last 1x1 convolution


class SameConv2d(nn.Conv2d):
    """3x3 convolution of stride 2 with TensorFlow's SAME padding.

    An even side is padded by 1 at its end only (right, bottom), an odd side by 1 at both ends, so
    that the output side is ceil(input / 2) and sampling points fall where TensorFlow puts them.
    """

    def forward(self, input: Tensor) -> Tensor:
        # (B, C, H, W) -> (B, C', ceil(H/2), ceil(W/2)); no branch on the shape: it can be traced
        rows, columns = input.shape[-2] % 2, input.shape[-1] % 2
        return super().forward(F.pad(input, (columns, 1, rows, 1)))


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that stays in evaluation mode, whatever `train()` says, while `frozen`."""

    frozen: bool = False

    def train(self, mode: bool = True) -> BatchNorm2d:
        super().train(mode and not self.frozen)
        return self


def freeze_batch_norm(module: nn.Module) -> nn.Module:
    """Keep the running statistics of every batch norm below `module` for good; returns `module`.

    Needed before training on weights with folded batch norm (identity statistics): in training
    mode a batch norm divides by the statistics of the batch, which such weights never saw, and
    the pretrained function is lost within one forward pass. Scale and shift keep learning as far
    as their `requires_grad` says. Survives `module.train()` and `copy.deepcopy`.
    """
    for name, child in module.named_modules():
        if isinstance(child, BatchNorm2d):
            child.frozen = True
            child.eval()
        elif isinstance(child, nn.modules.batchnorm._BatchNorm):
            raise TypeError(
                f"Expected triage.nets.mobilenet_v2.BatchNorm2d at {name!r},"
                f" got {type(child).__name__}, which would thaw at the next train()"
            )
    return module


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, padding: Padding
) -> nn.Conv2d:
    same = padding == "same" and stride == 2  # at stride 1 both paddings are one and the same
    kind = SameConv2d if same else nn.Conv2d
    return kind(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=0 if same else (kernel - 1) // 2,
        groups=groups,
        bias=False,
    )


def _conv_norm_relu(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, BatchNorm2d(convolution.out_channels), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter by depthwise 3x3, project by 1x1 without activation (paper, 3.3)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, expansion: int, padding: Padding
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.use_res_connect = stride == 1 and inputs == outputs
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_norm_relu(_convolution(inputs, hidden, 1, padding=padding)))
        depthwise = _convolution(hidden, hidden, 3, stride, groups=hidden, padding=padding)
        layers.append(_conv_norm_relu(depthwise))
        layers.append(_convolution(hidden, outputs, 1, padding=padding))
        layers.append(BatchNorm2d(outputs))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.use_res_connect else y


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1.0: float (B, 3, H, W) -> logits (B, num_classes).

    `features` is a Sequential of 19 blocks; its output is (B, 1280, H/32, W/32), each size rounded
    up. `padding`: "symmetric" is torchvision's padding by 1 on all sides, "same" TensorFlow's;
    weights work only with the padding that they were trained with.
    """

    def __init__(
        self, num_classes: int = 1000, padding: Padding = "symmetric", dropout: float = 0.2
    ) -> None:
        if padding not in get_args(Padding):
            raise ValueError(f"Expected padding one of {get_args(Padding)}, got {padding!r}")
        super().__init__()
        self.padding: Padding = padding
        channels = STEM_CHANNELS
        stem = _convolution(3, channels, 3, stride=2, padding=padding)
        blocks: list[nn.Module] = [_conv_norm_relu(stem)]
        for expansion, outputs, repeats, first_stride in STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, stride, expansion, padding))
                channels = outputs
        last = _convolution(channels, FEATURE_CHANNELS, 1, padding=padding)
        blocks.append(_conv_norm_relu(last))
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(FEATURE_CHANNELS, num_classes)
        )
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"Expected 4D tensor (B, 3, H, W), got {x.ndim}D {tuple(x.shape)}")
        x = self.features(x)  # (B, 1280, H/32, W/32)
        x = x.mean(dim=(2, 3))  # (B, 1280)
        logits: Tensor = self.classifier(x)  # (B, num_classes)
        return logits


def _initialise(module: nn.Module) -> None:
    """As torchvision does: He initialisation by fan-out, small normal weights in the classifier."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)


def split(net: MobileNetV2, at: int = 14) -> tuple[nn.Sequential, nn.Sequential]:
    """(trunk, tail) = the first `at` feature blocks, and the others; both share `net`'s parameters.

    The blocks keep their numbers: the tail's parameters are named `14.conv...` and so on.
    At 14 the trunk maps (B, 3, H, W) to (B, 96, H/16, W/16).
    """
    if not 0 < at < BLOCKS:
        raise ValueError(f"Expected a block number from 1 to {BLOCKS - 1}, got {at}")
    blocks = list(net.features.named_children())
    return nn.Sequential(OrderedDict(blocks[:at])), nn.Sequential(OrderedDict(blocks[at:]))
