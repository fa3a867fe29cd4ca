"""The networks of one bundle, loaded once and ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from triage.inference.engines import Engine, choose_engine
from triage.inference.programs import Programs
from triage.nets.bundle import BundleError, Manifest, load_tensors, read_manifest, reference, verify
from triage.nets.localiser import Localiser, localiser_of
from triage.nets.sequence_head import SequenceHeads
from triage.nets.slice_net import SHARED, SIZE, SliceEnsembles
from triage.nets.volume_net import KIND, VolumeNet
from triage.settings import Settings, settings
from triage.types import BundleRef


@dataclass
class Networks:
    """Localiser, slice ensembles and volume net in evaluation mode on one device.

    `programs` runs them (the engine that TRIAGE_ENGINE names); the modules themselves are there
    for their weights and for gradients.
    """

    folder: Path
    manifest: Manifest
    ref: BundleRef
    localiser: Localiser
    slices: SliceEnsembles
    volume: VolumeNet
    device: torch.device
    programs: Programs
    sequence: SequenceHeads | None = None


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one; asking for CUDA without one is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("Expected a CUDA device, found none: use --device cpu or auto.")
    return torch.device(name)


def load_networks(folder: Path, device: str = "auto", engine: Engine | None = None) -> Networks:
    """Load a bundle; every file's sha256 is checked before it is parsed.

    `engine`: what runs the networks; None is the one of the settings. Nothing is compiled yet, see
    `Programs.warm_up`. Raises BundleError if a file is missing, changed or does not fit its
    architecture, EngineError if there is no such engine.
    """
    manifest = read_manifest(folder)
    verify(folder, manifest)

    where = choose_device(device)
    localiser = localiser_of(manifest.networks["localiser"])
    slices = _ensembles(manifest)
    volume = _volume(manifest)
    nets: dict[str, nn.Module] = {"localiser": localiser, "slices": slices, "volume": volume}
    sequence = _sequence(manifest)
    if sequence is not None:
        nets["sequence"] = sequence
    for name, net in nets.items():
        net.load_state_dict(_weights(folder, name, manifest, net))
        net.eval().requires_grad_(False).to(where)
    ref = reference(folder)
    runs = engine or engine_of(settings(), where)
    programs = Programs(runs, ref.sha256, localiser, slices, volume)
    return Networks(folder, manifest, ref, localiser, slices, volume, where, programs, sequence)


def engine_of(options: Settings, device: torch.device) -> Engine:
    """The engine that the settings name, with its cache below the home folder."""
    cache = options.home.expanduser() / "cache" / "engines"
    return choose_engine(options.engine, device, threads=options.threads, cache=cache)


def _ensembles(manifest: Manifest) -> SliceEnsembles:
    """Members, shared blocks and picture size: one number, or one a target."""
    data = manifest.networks["slices"]

    def numbers(key: str, default: int) -> int | dict[str, int]:
        value = data.get(key, default)
        if isinstance(value, dict):
            return {name: int(str(n)) for name, n in value.items()}
        return int(str(value))

    return SliceEnsembles(
        numbers("members", 0),
        numbers("shared", SHARED),
        str(data["padding"]),
        numbers("size", SIZE),
        str(data.get("pooling", "mean")),
    )


def _volume(manifest: Manifest) -> VolumeNet:
    """The volume net; bundles of other kinds were made by other versions of the program."""
    data = manifest.networks["volume"]
    kind = str(data["kind"])
    if kind != KIND:
        raise BundleError(
            f"a volume net of kind {KIND}",
            repr(kind)[:100],
            "Use a bundle that fits this version of the program, or train it again.",
        )
    told = {name: bool(data.get(name, False)) for name in ("blood", "deep")}
    return VolumeNet(int(str(data["width"])), **told)


def _sequence(manifest: Manifest) -> SequenceHeads | None:
    """The sequence heads, in bundles that have them."""
    data = manifest.networks.get("sequence")
    if data is None:
        return None
    channels = data.get("channels")
    if not isinstance(channels, dict):
        raise BundleError("channels by target", repr(channels)[:100], "Write the bundle again.")
    return SequenceHeads({t: int(str(c)) for t, c in channels.items()}, int(str(data["width"])))


def _weights(
    folder: Path, name: str, manifest: Manifest, net: nn.Module
) -> dict[str, torch.Tensor]:
    """The stored weights of a network, with the counters that inference does not need."""
    stored = load_tensors(folder, f"{name}.safetensors", manifest)
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    return {**counters, **stored}
