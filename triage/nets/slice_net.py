"""Slice ensembles: for each target several MobileNetV2 tails on one shared trunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from triage.nets.mobilenet_v2 import FEATURE_CHANNELS, MobileNetV2, freeze_batch_norm, split
from triage.types import TARGETS, Target

SIZE = 224  # pixels
SHARED = 17  # blocks of the trunk; the tail has the last two and the classifier


class Tail(nn.Module):
    """The last blocks of one member: trunk features (B, C, h, w) -> logit (B,)."""

    def __init__(self, shared: int = SHARED, padding: str = "same") -> None:
        super().__init__()
        net = MobileNetV2(num_classes=1, padding=padding)  # type: ignore[arg-type]
        self.features = split(net, shared)[1]
        self.classifier = nn.Linear(FEATURE_CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (B, 1280, h', w')
        logit: Tensor = self.classifier(x.mean((2, 3)))[:, 0]  # (B,)
        return logit


class SliceEnsembles(nn.Module):
    """A shared trunk, and `members` tails a target: slices (B, 3, 224, 224) in [-1, 1]."""

    def __init__(self, members: int, shared: int = SHARED, padding: str = "same") -> None:
        super().__init__()
        self.members, self.shared, self.padding = members, shared, padding
        whole = MobileNetV2(num_classes=1, padding=padding)  # type: ignore[arg-type]
        self.trunk = split(whole, shared)[0]
        self.tails = nn.ModuleDict(
            {
                t.value: nn.ModuleList([Tail(shared, padding) for _ in range(members)])
                for t in TARGETS
            }
        )
        freeze_batch_norm(self)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> trunk features (B, C, h, w)."""
        out: Tensor = self.trunk(x)
        return out

    def logits(self, target: Target, features: Tensor) -> Tensor:
        """Trunk features (B, C, h, w) -> the members' logits (members, B)."""
        return torch.stack([tail(features) for tail in self.of(target)])

    def of(self, target: Target) -> list[Tail]:
        """The members of one target."""
        return [tail for tail in self.tails[target.value].children() if isinstance(tail, Tail)]


class JointSliceNet(nn.Module):
    """One MobileNetV2 with a head a target: trains the shared trunk."""

    def __init__(self, padding: str = "same") -> None:
        super().__init__()
        self.net = MobileNetV2(num_classes=len(TARGETS), padding=padding)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> logits (B, 5)."""
        out: Tensor = self.net(x)
        return out
