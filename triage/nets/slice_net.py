"""Slice ensembles: for each target several MobileNetV2 tails on one shared trunk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from triage.nets.mobilenet_v2 import BLOCKS, FEATURE_CHANNELS, MobileNetV2, freeze_batch_norm
from triage.types import TARGETS, Target

SIZE = 224  # pixels
CHUNK = 32  # slices that the tails take at once
SHARED = 17  # blocks of the trunk; the tail has the last two and the classifier


def of_each(value: int | Mapping[str, int]) -> dict[Target, int]:
    """One number for all targets, or one a target (0 where a target is left out)."""
    if isinstance(value, Mapping):
        return {t: int(value.get(t.value, 0)) for t in TARGETS}
    return dict.fromkeys(TARGETS, int(value))


def blocks(net: MobileNetV2, start: int, stop: int) -> nn.Sequential:
    """Feature blocks start..stop-1 under their own numbers; they share `net`'s parameters."""
    return nn.Sequential(OrderedDict(list(net.features.named_children())[start:stop]))


class Tail(nn.Module):
    """The last blocks of one member: trunk features (B, C, h, w) -> logit (B,).

    `shared` 0: the member is a whole network of its own, its features are the pictures.
    """

    def __init__(self, shared: int = SHARED, padding: str = "same") -> None:
        super().__init__()
        net = MobileNetV2(num_classes=1, padding=padding)  # type: ignore[arg-type]
        self.features = blocks(net, shared, BLOCKS)
        self.classifier = nn.Linear(FEATURE_CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (B, 1280, h', w')
        logit: Tensor = self.classifier(x.mean((2, 3)))[:, 0]  # (B,)
        return logit


class SliceEnsembles(nn.Module):
    """A shared trunk, and members (tails) of each target: slices (B, 3, S, S) in [-1, 1].

    `members`, `shared` and `size` (pixels) are one number for all targets, or one a target: a
    target that was retrained with more layers of its own branches off the trunk earlier. A target
    with 0 members was not trained.
    """

    def __init__(
        self,
        members: int | Mapping[str, int],
        shared: int | Mapping[str, int] = SHARED,
        padding: str = "same",
        size: int | Mapping[str, int] = SIZE,
    ) -> None:
        super().__init__()
        self.members, self.shared, self.size = of_each(members), of_each(shared), of_each(size)
        self.padding = padding
        whole = MobileNetV2(num_classes=1, padding=padding)  # type: ignore[arg-type]
        depth = max((self.shared[t] for t in TARGETS if self.members[t]), default=SHARED)
        self.trunk = blocks(whole, 0, depth)
        # Copies of one tail: building a network draws millions of weights only to replace them.
        first = {n: Tail(n, padding) for n in {self.shared[t] for t in TARGETS if self.members[t]}}
        self.tails = nn.ModuleDict(
            {
                t.value: nn.ModuleList(
                    [deepcopy(first[self.shared[t]]) for _ in range(self.members[t])]
                )
                for t in TARGETS
            }
        )
        freeze_batch_norm(self)

    def features(self, x: Tensor, target: Target | None = None) -> Tensor:
        """(B, 3, S, S) -> trunk features (B, C, h, w) that the target's members take."""
        depth = len(self.trunk) if target is None else self.shared[target]
        for block in list(self.trunk.children())[:depth]:
            x = block(x)
        return x

    def logits(self, target: Target, features: Tensor) -> Tensor:
        """Trunk features (B, C, h, w) -> the members' logits (members, B)."""
        pieces = features.split(CHUNK)
        return torch.stack([torch.cat([tail(x) for x in pieces]) for tail in self.of(target)])

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
