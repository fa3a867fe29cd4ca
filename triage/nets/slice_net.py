"""Slice ensembles: for each target several MobileNetV2 tails on one shared trunk."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from triage.nets.mobilenet_v2 import BLOCKS, FEATURE_CHANNELS, MobileNetV2, freeze_batch_norm
from triage.types import TARGETS, Target

SIZE = 224  # pixels
CHUNK = 32  # slices that the tails take at once
SHARED = 17  # blocks of the trunk; the tail has the last two and the classifier
FINE = 14  # blocks below the finer maps, at a sixteenth of the picture
FINE_CHANNELS = 96
ORGAN_CLASSES = 8
SHARPNESS = 3.0  # of the soft maximum over a map
RARE_LOGIT = -3.0  # of a lesion in one place, to begin with


def pool_map(maps: Tensor, pooling: str) -> Tensor:
    """Logit maps (B, C, h, w) -> logits (B, C).

    `lse`: soft maximum, log-mean-exp (Pinheiro & Collobert, CVPR 2015): a small lesion in one cell
    is not diluted by the others. `mean`: as published for MobileNetV2.
    """
    flat = maps.flatten(2)  # (B, C, h w)
    if pooling == "mean":
        return flat.mean(2)
    if pooling != "lse":
        raise ValueError(f"Expected pooling mean or lse, got {pooling!r}")
    return torch.logsumexp(SHARPNESS * flat, 2).sub(math.log(flat.shape[2])) / SHARPNESS


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

    def __init__(self, shared: int = SHARED, padding: str = "same", pooling: str = "mean") -> None:
        super().__init__()
        net = MobileNetV2(num_classes=1, padding=padding)  # type: ignore[arg-type]
        self.pooling = pooling
        self.features = blocks(net, shared, BLOCKS)
        self.classifier = nn.Linear(FEATURE_CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return pool_map(self.map(self.features(x)), self.pooling)[:, 0]  # (B,)

    def map(self, x: Tensor) -> Tensor:
        """Last features (B, 1280, h', w') -> the logit of each place (B, 1, h', w')."""
        places: Tensor = self.classifier(x.permute(0, 2, 3, 1))  # (B, h', w', 1)
        return places.permute(0, 3, 1, 2)


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
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.members, self.shared, self.size = of_each(members), of_each(shared), of_each(size)
        self.padding, self.pooling = padding, pooling
        whole = MobileNetV2(num_classes=1, padding=padding)  # type: ignore[arg-type]
        depth = max((self.shared[t] for t in TARGETS if self.members[t]), default=SHARED)
        self.trunk = blocks(whole, 0, depth)
        # Copies of one tail: building a network draws millions of weights only to replace them.
        used = {self.shared[t] for t in TARGETS if self.members[t]}
        first = {n: Tail(n, padding, pooling) for n in used}
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


class Joint(NamedTuple):
    """What the joint network says of pictures (B, 3, S, S)."""

    logits: Tensor  # (B, 5) a target
    maps: Tensor  # (B, 5, S/32, S/32) logits of a lesion in each place
    fine: Tensor  # (B, 5, S/16, S/16) the same, from the features in the middle
    organs: Tensor  # (B, 8, S/16, S/16) logits of organ classes


class JointSliceNet(nn.Module):
    """One MobileNetV2 with a head a target: trains the shared trunk.

    Two heads more, on the features in the middle, are told where lesions and organs lie: with the
    labels of slices alone the trunk learns several times as slowly.
    """

    def __init__(self, padding: str = "same", pooling: str = "lse") -> None:
        super().__init__()
        self.pooling = pooling
        self.net = MobileNetV2(num_classes=len(TARGETS), padding=padding)  # type: ignore[arg-type]
        self.fine = nn.Conv2d(FINE_CHANNELS, len(TARGETS), 1)
        self.organs = nn.Conv2d(FINE_CHANNELS, ORGAN_CLASSES, 1)
        for bias in (self.heads.bias, self.fine.bias):
            nn.init.constant_(bias, RARE_LOGIT)  # type: ignore[arg-type]

    @property
    def heads(self) -> nn.Linear:
        """Last features -> one logit a target."""
        head = self.net.classifier[1]
        if not isinstance(head, nn.Linear):
            raise TypeError(f"Expected a Linear, got {type(head).__name__}")
        return head

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, 5)."""
        return self.everything(x).logits

    def everything(self, x: Tensor) -> Joint:
        """(B, 3, S, S) -> logits and maps."""
        for block in list(self.net.features.children())[:FINE]:
            x = block(x)
        fine, organs = self.fine(x), self.organs(x)
        for block in list(self.net.features.children())[FINE:]:
            x = block(x)
        maps = self.heads(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, 5, h, w)
        return Joint(pool_map(maps, self.pooling), maps, fine, organs)
