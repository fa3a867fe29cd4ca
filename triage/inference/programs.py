"""The networks of one bundle as an engine runs them: compiled when first needed, and once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from triage.inference.engines import Compiled, Engine
from triage.nets.localiser import STRIDE, Localiser
from triage.nets.slice_net import SliceEnsembles, Tail, pool_map
from triage.nets.volume_net import LEVELS, POOL, REGIONS, VolumeNet
from triage.types import TARGETS, Target

BATCH = 16  # pictures that the trunk takes at once
TAIL_BATCH = 64  # slices that the tails take at once

# The trunk's first blocks stay in fp32 on an engine that computes in bf16: they make nine tenths of
# its error (relative error of the features: blocks 1 to 3 in bf16 0.024 to 0.028, the others
# together 0.010), because few channels and no expansion average the rounding out.
SENSITIVE = 4


class Programs:
    """Localiser, trunk, tails and volume net on one engine.

    `identity` names the weights (the bundle's sha256). Inputs may lie anywhere; answers lie on the
    engine's device. May be shared by threads.
    """

    def __init__(
        self,
        engine: Engine,
        identity: str,
        localiser: Localiser,
        slices: SliceEnsembles,
        volume: VolumeNet,
    ) -> None:
        self.engine, self.identity = engine, identity
        self._nets = (localiser, slices, volume)
        self._compiled: dict[str, Compiled] = {}
        self._lock = threading.Lock()

    def localiser(self, x: Tensor) -> Tensor:
        """Scaled HU (1, 1, X, Y, Z), sides multiples of 8 -> logits (1, 8, X, Y, Z).

        Always in fp32: where a label flips, the box that a view is cut from may grow or shrink by
        much (measured: a kidney's probability moved by 0.12).
        """
        side = 2 * STRIDE
        run = self._get(
            "localiser",
            lambda: (_Wrapped(self._nets[0]), [torch.zeros(1, 1, side, side, side)]),
            exact=True,
        )
        return run(x)

    def features(self, x: Tensor, depth: int) -> Tensor:
        """Pictures (S, 3, s, s) -> features (S, C, h, w) after `depth` blocks of the trunk."""
        if depth == 0:  # the members are whole networks
            return x.to(self.engine.device)
        first = min(SENSITIVE, depth) if self.engine.precision == "bf16" else 0
        runs = [self._trunk(start, end, exact=exact)
                for start, end, exact in ((0, first, True), (first, depth, False))
                if start < end]  # fmt: skip

        def through(piece: Tensor) -> Tensor:
            for run in runs:
                piece = run(piece)
            return piece

        return torch.cat([through(piece) for piece in x.split(BATCH)])

    def maps(self, target: Target, features: Tensor) -> Tensor:
        """Trunk features (S, C, h, w) -> each member's logit in each place (members, S, h', w')."""
        run = self._get(f"tails {target.value}", lambda: self._tails(target, features))
        return torch.cat([run(piece) for piece in features.split(TAIL_BATCH)], 1)

    def logits(self, target: Target, features: Tensor) -> Tensor:
        """Trunk features (S, C, h, w) -> the members' logits (members, S)."""
        return self.pooled(target, self.maps(target, features))

    def pooled(self, target: Target, maps: Tensor) -> Tensor:
        """Maps (members, S, h', w') -> the members' logits (members, S)."""
        tails = self._nets[1].of(target)
        rows = [pool_map(m[:, None], t.pooling)[:, 0] for m, t in zip(maps, tails, strict=True)]
        return torch.stack(rows)

    def volume_features(self, hu: Tensor, regions: Tensor, levels: Tensor) -> Tensor:
        """See `VolumeNet.finest`."""
        return self._get("volume", self._volume)(hu, regions, levels)

    def warm_up(self) -> None:
        """Compile everything, so that the first study does not wait."""
        slices = self._nets[1]
        self.localiser(torch.zeros(1, 1, *[2 * STRIDE] * 3))
        _, (hu, regions, levels) = self._volume()
        self.volume_features(hu, regions, levels)
        for target in TARGETS:
            if slices.members[target]:
                size, depth = slices.size[target], slices.shared[target]
                self.maps(target, self.features(torch.zeros(1, 3, size, size), depth))

    def _get(
        self,
        name: str,
        make: Callable[[], tuple[nn.Module, Sequence[Tensor]]],
        *,
        exact: bool = False,
    ) -> Compiled:
        with self._lock:
            if name not in self._compiled:
                key = f"{self.identity} {name}"
                self._compiled[name] = self.engine.compile(*make(), key, exact=exact)
            return self._compiled[name]

    def _trunk(self, start: int, end: int, *, exact: bool) -> Compiled:
        """The trunk's blocks from `start` to `end` - 1."""

        def make() -> tuple[nn.Module, Sequence[Tensor]]:
            blocks = list(self._nets[1].trunk.children())
            with torch.no_grad():
                example = nn.Sequential(*blocks[:start])(torch.zeros(2, 3, 64, 64))
            return nn.Sequential(*blocks[start:end]), [example]

        return self._get(f"trunk {start} {end}", make, exact=exact)

    def _tails(self, target: Target, features: Tensor) -> tuple[nn.Module, Sequence[Tensor]]:
        example = torch.zeros(2, *features.shape[1:])
        return _Members(self._nets[1].of(target)), [example]

    def _volume(self) -> tuple[nn.Module, Sequence[Tensor]]:
        side = 2 * STRIDE
        regions = torch.zeros(1, len(REGIONS), side, side, side)
        hu = torch.zeros(1, 1, *(side * p for p in POOL))
        return _Finest(self._nets[2]), [hu, regions, torch.zeros(1, len(LEVELS))]


class _Wrapped(nn.Module):
    """The network inside the localiser, without its check of shapes: that cannot be traced."""

    def __init__(self, net: Localiser) -> None:
        super().__init__()
        self.net = net.net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class _Members(nn.Module):
    """All members of a target on the same features: (S, C, h, w) -> maps (members, S, h', w')."""

    def __init__(self, tails: Sequence[Tail]) -> None:
        super().__init__()
        self.tails = nn.ModuleList(tails)

    def forward(self, x: Tensor) -> Tensor:
        maps = [t.map(t.features(x))[:, 0] for t in self.tails if isinstance(t, Tail)]
        return torch.stack(maps)


class _Finest(nn.Module):
    """The volume net up to its finest features; its heads stay in torch, for the gradients."""

    def __init__(self, net: VolumeNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, hu: Tensor, regions: Tensor, levels: Tensor) -> Tensor:
        return self.net.finest(hu, regions, levels)
