"""The networks of a bundle as MONAI wants them: definition or TorchScript, config, what goes in.

See `monai_export` for the folders they are written to.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from triage.inference.networks import Networks
from triage.nets.localiser import CLASSES, HIGH_HU, LOW_HU, STRIDE
from triage.nets.localiser import POOL as LOCALISER_POOL
from triage.nets.sequence_head import SequenceHead
from triage.nets.slice_net import SliceEnsembles
from triage.nets.volume_net import LEVELS, POOL, REGIONS
from triage.types import ORGAN_LABEL, TARGETS, Target

TORCHSCRIPT = "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)"


@dataclass(frozen=True)
class Exported:
    """One network on its way out: what it is, what goes in and comes out, how to run it."""

    name: str
    task: str
    description: str
    inputs: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any]  # inference.json, without what all have in common
    model: nn.Module | None = None  # weights for model.pt ...
    script: torch.jit.ScriptModule | None = None  # ... or TorchScript for model.ts


def every_network(nets: Networks) -> list[Exported]:
    """All networks of a bundle, ready to be written."""
    found = [localiser(nets), volume(nets)]
    found += [slices(nets, t) for t in TARGETS if nets.slices.members[t]]
    if nets.sequence is not None:
        found += [sequence(nets, t) for t in TARGETS if t in nets.sequence]
    return found


def _data(kind: str, channels: int, shape: list[Any], dtype: str, span: list[float],
          names: Mapping[str, str], patch: bool = False) -> dict[str, Any]:  # fmt: skip
    """One entry of `network_data_format`."""
    return {
        "type": "image" if kind in ("hounsfield", "segmentation", "probability") else "tuples",
        "format": kind,
        "modality": "CT",
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": dtype,
        "value_range": span,
        "is_patch_data": patch,
        "channel_def": dict(names),
    }


def _targets() -> dict[str, str]:
    return {str(i): t.value for i, t in enumerate(TARGETS)}


def localiser(nets: Networks) -> Exported:
    """The localiser as MONAI UNet: definition and weights."""
    spacing = _working_spacing(nets)
    pixdim = [s * p for s, p in zip(spacing, LOCALISER_POOL, strict=True)]
    width = nets.localiser.architecture["width"]
    names = {"0": "background", **{str(v): o.value for o, v in ORGAN_LABEL.items()}}
    definition = {
        "_target_": "monai.networks.nets.UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": CLASSES,
        "channels": [width, 2 * width, 4 * width, 8 * width],
        "strides": [[2, 2, 1], [2, 2, 2], [2, 2, 2]],
        "num_res_units": 1,
        "norm": ["INSTANCE", {"affine": True}],
    }
    transforms = [
        {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": pixdim, "mode": "bilinear"},
        {**_scaling(LOW_HU, HIGH_HU), "_target_": "ScaleIntensityRanged", "keys": "image"},
        {"_target_": "DivisiblePadd", "keys": "image", "k": STRIDE, "value": -1.0,
         "method": "end"},
    ]  # fmt: skip
    config = {
        "network_def": definition,
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location=@device,"
        " weights_only=True)",
        "network": "$monai.networks.utils.copy_model_state(@network_def, @weights)"
        " and @network_def.to(@device).eval()",
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            ],
        },
        "run": "$@postprocessing({'pred': @inferer(@preprocessing({'image': @image})['image']"
        "[None].to(@device), @network)[0]})['pred']",
    }
    shape = [f"{STRIDE}*n"] * 3
    return Exported(
        "localiser",
        "segmentation",
        f"Organs of the abdomen on a grid of {pixdim} mm.",
        {"image": _data("hounsfield", 1, shape, "float32", [-1, 1], {"0": "scaled HU"})},
        {"pred": _data("segmentation", CLASSES, shape, "float32", [0, 1], names)},
        config,
        model=nets.localiser.net,
    )


class _Slices(nn.Module):
    """One target's trunk and members: pictures (B, 3, S, S) in [-1, 1] -> logits (B, members)."""

    def __init__(self, ensembles: SliceEnsembles, target: Target) -> None:
        super().__init__()
        depth = ensembles.shared[target]
        self.trunk = nn.Sequential(*list(ensembles.trunk.children())[:depth])
        self.members = nn.ModuleList(ensembles.of(target))

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        return torch.stack([member(x) for member in self.members], 1)


def slices(nets: Networks, target: Target) -> Exported:
    """One target's slice ensemble as TorchScript, from HU pictures to a probability a member."""
    size, count = nets.slices.size[target], nets.slices.members[target]
    module = _Slices(nets.slices, target).eval()
    views = preprocessing(nets)["views"][target.value]
    low, high = float(preprocessing(nets)["low_hu"]), float(views[0]["high_hu"])
    config = {
        "network_def": TORCHSCRIPT,
        "network": "$@network_def.eval()",
        "preprocessing": {**_scaling(low, high), "_target_": "ScaleIntensityRange"},
        "postprocessing": {"_target_": "Activations", "sigmoid": True},
        "run": "$@postprocessing(@inferer(@preprocessing(@image).to(@device), @network))",
    }
    return Exported(
        f"slices_{target.value}",
        "classification",
        f"Injury of {target.value} on single slices: one uncalibrated probability a member.",
        {
            "image": _data(
                "hounsfield", 3, [size, size], "float32", [-1024, 3071],
                {"0": "slice below", "1": "slice", "2": "slice above"}, patch=True,
            )
        },
        {
            "pred": _data(
                "probability", count, [], "float32", [0, 1],
                {str(i): f"member {i}" for i in range(count)},
            )
        },
        config,
        script=traced(module, torch.zeros(2, 3, size, size)),
    )  # fmt: skip


def _scripted(head: SequenceHead) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in torch, but what MONAI bundles carry
        script: torch.jit.ScriptModule = torch.jit.script(head)
    return script


def sequence(nets: Networks, target: Target) -> Exported:
    """One target's sequence head as TorchScript, from slice features to a study logit."""
    if nets.sequence is None:
        raise ValueError("Expected a bundle with sequence heads")
    head = nets.sequence.heads[target.value]
    if not isinstance(head, SequenceHead):
        raise TypeError(f"Expected a SequenceHead, got {type(head).__name__}")
    channels = head.channels
    names = {"features": f"(B, S, {channels})", "logits": "(B, S)", "z": "(B, S) mm",
             "base": "(B,)", "length": "(B,)"}  # fmt: skip
    config = {"network_def": TORCHSCRIPT, "network": "$@network_def.eval()",
              "run": "$torch.sigmoid(@network(*@image))"}  # fmt: skip
    return Exported(
        f"sequence_{target.value}",
        "classification",
        f"Injury of {target.value} in the study, from all slices in their order (steps of 6 mm).",
        {"image": _data("tuples", channels, [], "float32", [-20, 20], names)},
        {"pred": _data("probability", 1, [], "float32", [0, 1], {"0": target.value})},
        config,
        script=_scripted(head),
    )


def traced(net: nn.Module, *example: Tensor) -> torch.jit.ScriptModule:
    """A network as TorchScript, from one run; sizes other than the example's work too."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # checks of shapes are not part of the trace: as meant
        script: torch.jit.ScriptModule = torch.jit.trace(net, example, check_trace=False)
    return script


def volume(nets: Networks) -> Exported:
    """The volume net as TorchScript: HU and organ regions -> study, grade and lesion logits."""
    names = {
        "0": "HU (B, 1, 2X, 2Y, Z) on the working grid",
        "1": "regions (B, 4, X, Y, Z), masks on the grid of 3 mm",
        "2": "median HU of each region, then of the aorta, in the whole patient (B, 5)",
    }
    config = {
        "network_def": TORCHSCRIPT,
        "network": "$@network_def.eval()",
        "run": "$torch.sigmoid(@network(*[x.to(@device) for x in @image])[0])",
    }
    channels = {f"region {i}": "+".join(o.value for o in r) for i, r in enumerate(REGIONS)}
    regions, levels = torch.zeros(1, len(REGIONS), 32, 32, 32), torch.zeros(1, len(LEVELS))
    return Exported(
        "volume",
        "classification",
        "Injury of each target in the study, from the whole abdomen at 3 mm.",
        {
            "image": _data(
                "tuples", 1, [f"{STRIDE}*n*{p}" for p in POOL], "float32", [-1024, 3071],
                names | channels,
            )
        },
        {"pred": _data("probability", len(TARGETS), [], "float32", [0, 1], _targets())},
        config,
        script=traced(nets.volume, torch.zeros(1, 1, 64, 64, 32), regions, levels),
    )  # fmt: skip


def _scaling(low: float, high: float) -> dict[str, Any]:
    return {"a_min": low, "a_max": high, "b_min": -1.0, "b_max": 1.0, "clip": True}


def preprocessing(nets: Networks) -> dict[str, Any]:
    """The constants of preprocessing that the bundle was trained with."""
    return dict(nets.manifest.preprocessing)


def _working_spacing(nets: Networks) -> list[float]:
    return [float(v) for v in preprocessing(nets)["working_spacing_mm"]]
