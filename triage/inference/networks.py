"""The networks of one bundle, loaded once and ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from triage.nets.bundle import Manifest, load_tensors, read_manifest, reference, verify
from triage.nets.localiser import Localiser
from triage.nets.slice_net import SliceEnsembles
from triage.nets.volume_net import VolumeNet
from triage.types import BundleRef


@dataclass
class Networks:
    """Localiser, slice ensembles and volume net in evaluation mode on one device."""

    folder: Path
    manifest: Manifest
    ref: BundleRef
    localiser: Localiser
    slices: SliceEnsembles
    volume: VolumeNet
    device: torch.device


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one; asking for CUDA without one is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("Expected a CUDA device, found none: use --device cpu or auto.")
    return torch.device(name)


def load_networks(folder: Path, device: str = "auto") -> Networks:
    """Load a bundle; every file's sha256 is checked before it is parsed.

    Raises BundleError if a file is missing, changed or does not fit its architecture.
    """
    manifest = read_manifest(folder)
    verify(folder, manifest)

    def number(network: str, key: str) -> int:
        return int(str(manifest.networks[network][key]))

    where = choose_device(device)
    localiser = Localiser(number("localiser", "width"))
    slices = SliceEnsembles(
        number("slices", "members"),
        number("slices", "shared"),
        str(manifest.networks["slices"]["padding"]),
    )
    volume = VolumeNet(number("volume", "width"))
    nets: dict[str, nn.Module] = {"localiser": localiser, "slices": slices, "volume": volume}
    for name, net in nets.items():
        net.load_state_dict(_weights(folder, name, manifest, net))
        net.eval().requires_grad_(False).to(where)
    return Networks(folder, manifest, reference(folder), localiser, slices, volume, where)


def _weights(
    folder: Path, name: str, manifest: Manifest, net: nn.Module
) -> dict[str, torch.Tensor]:
    """The stored weights of a network, with the counters that inference does not need."""
    stored = load_tensors(folder, f"{name}.safetensors", manifest)
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    return {**counters, **stored}
