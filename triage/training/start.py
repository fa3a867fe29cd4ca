"""What a training starts from: a bundle, ImageNet weights, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from triage.inference.networks import Networks
from triage.nets.mobilenet_v2 import BLOCKS, MobileNetV2, freeze_batch_norm
from triage.nets.sequence_head import SequenceHeads
from triage.nets.slice_net import JointSliceNet, SliceEnsembles, Tail, blocks
from triage.nets.weights import Pretrained, load_imagenet, padding_of
from triage.types import TARGETS, Target

IMAGENET = "imagenet"
NONE = "none"
RANDOM = "random weights"
# Layers that learn -> blocks of the trunk that a member shares. A block has three convolutions,
# the last one and the classifier are a layer each; the members' own blocks are counted from there.
UNFROZEN: dict[str, tuple[int, int | None]] = {
    "4": (17, 4),
    "5": (17, 5),  # everything above the shared trunk
    "8": (16, 8),
    "16": (13, 16),
    "all": (0, None),  # every member a network of its own: dear, and nothing is cached but pictures
}
WHERE = (
    "torchvision's `mobilenet_v2` (IMAGENET1K, .pth) or a conversion of it to .safetensors;"
    " download.pytorch.org/models has it. Set TRIAGE_IMAGENET or give --init FILE"
)


class StartError(ValueError):
    """The networks to start from do not fit what was asked for."""


@dataclass
class Start:
    """Networks to start from. `net` holds the trunk, and later blocks for new members.

    `base`: the bundle that gives localiser, volume net, and the members of targets that are not
    retrained - as long as `keeps`: they stand on this very trunk. `heads` (5, 1280), (5,): a
    classifier for each target, where the trunk was trained with them.
    """

    source: str
    base: Networks
    net: MobileNetV2
    keeps: bool
    heads: nn.Linear | None = None
    trained_pooling: str | None = None

    @property
    def pretrained(self) -> bool:
        """Whether the network has learned anything yet."""
        return self.source != RANDOM

    @property
    def pooling(self) -> str:
        """How members pool their map: as the trunk was trained, as those that stay beside them."""
        return self.trained_pooling or self.base.slices.pooling

    def trunk(self, shared: int) -> nn.Sequential:
        """The first `shared` blocks. Raises StartError where the bundle has not so many."""
        depth = len(self.base.slices.trunk) if self.keeps else BLOCKS
        if shared > depth:
            raise StartError(
                f"{self.source} shares {depth} blocks of its trunk, {shared} are needed:"
                " unfreeze more layers or start from another bundle"
            )
        return blocks(self.net, 0, shared)

    def tail(self, target: Target, shared: int, member: int) -> Tail:
        """What a new member starts from: the bundle's member of the target, or the trunk's own."""
        own = self.base.slices.of(target) if self.keeps else []
        tail = fresh_tail(self.net, shared, target, self.heads, self.pooling)
        if own:
            like = own[member % len(own)]
            state = tail.features.state_dict() | _numbered(like.features.state_dict(), shared)
            tail.features.load_state_dict(state)
            tail.classifier.load_state_dict(like.classifier.state_dict())
        return tail


def fresh_tail(
    net: MobileNetV2,
    shared: int,
    target: Target,
    heads: nn.Linear | None = None,
    pooling: str = "mean",
) -> Tail:
    """The blocks of a network above its trunk, with the target's row of `heads` or a new head."""
    tail = Tail(shared, net.padding, pooling)
    tail.features.load_state_dict(_numbered(net.features.state_dict(), shared))
    if heads is not None:
        row = TARGETS.index(target)
        with torch.no_grad():
            tail.classifier.weight.copy_(heads.weight[row : row + 1])
            tail.classifier.bias.copy_(heads.bias[row : row + 1])
    else:
        nn.init.normal_(tail.classifier.weight, 0, 0.01)
        nn.init.zeros_(tail.classifier.bias)
    freeze_batch_norm(tail)
    return tail


def _numbered(state: Mapping[str, Tensor], first: int) -> dict[str, Tensor]:
    """Parameters of the blocks from `first` on; keys begin with the block's number."""
    return {k: v for k, v in state.items() if int(k.split(".")[0]) >= first}


def from_bundle(base: Networks) -> Start:
    """Trunk and members of a bundle; blocks above its trunk are those of a first member."""
    net = MobileNetV2(num_classes=1, padding=base.slices.padding)  # type: ignore[arg-type]
    state = dict(base.slices.trunk.state_dict())
    some = [m for t in TARGETS for m in base.slices.of(t)[:1]]
    for tail in some[:1]:
        rest = tail.features.state_dict()
        state |= {k: v for k, v in rest.items() if k not in state}
    missing = net.features.load_state_dict(state, strict=False).missing_keys
    if [k for k in missing if not k.endswith("num_batches_tracked")]:
        raise StartError(f"{base.folder} holds no whole network to start from")
    ref = base.ref
    return Start(f"bundle {ref.name} {ref.version} ({ref.sha256[:12]})", base, net, keeps=True)


def from_weights(path: Path, base: Networks) -> Start:
    """ImageNet weights from a file; the members of the base do not fit this trunk."""
    if not path.is_file():
        raise StartError(f"no ImageNet weights at {path}. {WHERE}")
    net = MobileNetV2(num_classes=1, padding=padding_of(path))
    told = load_imagenet(net, path)
    fit_input(net, told)
    return Start(f"ImageNet weights {path.name}", base, net, keeps=False)


def from_nothing(base: Networks, seed: int) -> Start:
    """A random start."""
    torch.manual_seed(seed)
    net = MobileNetV2(num_classes=1, padding=base.slices.padding)  # type: ignore[arg-type]
    return Start(RANDOM, base, net, keeps=False)


def from_trunk(joint: JointSliceNet, start: Start) -> Start:
    """A trunk that was just trained; nothing of the base stands on it."""
    return Start(
        f"trunk trained from {start.source}",
        start.base,
        joint.net,
        False,
        joint.heads,
        joint.pooling,
    )


@torch.no_grad()
def fit_input(net: MobileNetV2, told: Pretrained) -> None:
    """Let a net that wants (x - mean) / std take x * 2 - 1: the stem is changed accordingly.

    Exact but for the outermost pixels, where zeros stand for another grey.
    """
    stem = next(iter(net.features.children()))
    convolution, norm = list(stem.children())[:2]
    if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        raise TypeError("Expected a convolution and its norm")
    if norm.running_mean is None:
        raise TypeError("Expected running statistics")
    std, mean = torch.tensor(told.std), torch.tensor(told.mean)
    shift = (0.5 - mean) / std  # (3,)
    norm.running_mean -= torch.einsum("ocij,c->o", convolution.weight, shift)
    convolution.weight.mul_((0.5 / std)[None, :, None, None])


@dataclass(frozen=True)
class Trained:
    """The new members of one target."""

    tails: Sequence[Tail]
    shared: int
    size: int


def assembled(start: Start, trained: Mapping[Target, Trained]) -> SliceEnsembles:
    """New members beside those of the base that still stand on the trunk."""
    old = start.base.slices
    kept = [t for t in TARGETS if start.keeps and t not in trained]
    members = {t.value: len(x.tails) for t, x in trained.items()}
    shared = {t.value: x.shared for t, x in trained.items()}
    size = {t.value: x.size for t, x in trained.items()}
    for t in kept:
        members[t.value], shared[t.value] = old.members[t], old.shared[t]
        size[t.value] = old.size[t]
    out = SliceEnsembles(members, shared, start.net.padding, size, start.pooling)
    out.trunk.load_state_dict(start.trunk(len(out.trunk)).state_dict())
    for t in TARGETS:
        source = trained[t].tails if t in trained else old.of(t) if t in kept else ()
        for tail, weights in zip(out.of(t), source, strict=True):
            tail.load_state_dict(weights.state_dict())
    return out.eval().requires_grad_(False)


def kept_heads(start: Start, retrained: Sequence[Target]) -> SequenceHeads | None:
    """Sequence heads of the targets whose members stay; a new member needs a new head."""
    old = start.base.sequence
    kept = [t for t in TARGETS if old and start.keeps and t in old and t not in retrained]
    if old is None or not kept:
        return None
    channels = {t.value: int(old.architecture["channels"][t.value]) for t in kept}
    heads = SequenceHeads(channels, int(old.architecture["width"]))
    for t in kept:
        heads.heads[t.value].load_state_dict(old.heads[t.value].state_dict())
    return heads.eval().requires_grad_(False)
