"""ImageNet weights for MobileNetV2, from torchvision's files or a TensorFlow conversion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from triage.nets.mobilenet_v2 import BatchNorm2d, MobileNetV2, Padding, freeze_batch_norm

__all__ = ["Pretrained", "freeze_batch_norm", "load_imagenet", "padding_of"]

IMAGENET_CLASSES = 1000
_COUNTER = "num_batches_tracked"  # not in every file, and of no use for inference


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What was loaded, and the input it wants: (x - mean) / std for RGB x in [0, 1].

    `folded`: the batch norms were folded into the convolutions (identity statistics). Such a net
    must be trained with `freeze_batch_norm(net)`. `classifier`: the last layer was loaded too.
    """

    padding: Padding
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    folded: bool
    classifier: bool


# TensorFlow wants RGB / 127.5 - 1; torchvision the mean and deviation of ImageNet's pixels.
_INPUT: dict[Padding, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "same": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "symmetric": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def padding_of(path: str | Path) -> Padding:
    """The padding that the weights in `path` were trained with: construct the net with it."""
    return _read(Path(path))[1]


def load_imagenet(net: MobileNetV2, path: str | Path) -> Pretrained:
    """Load ImageNet weights into `net` from `.safetensors`, or from torchvision's `.pth`.

    The classifier is loaded where the classes agree (of 1,001 classes the first, background, is
    left out for a net of 1,000); otherwise it keeps its initial values. Every other parameter must
    be there with its shape: a missing, surplus or misshapen one is a ValueError, and so is a net
    whose padding is not the one that the weights were trained with.
    """
    path = Path(path)
    state, padding = _read(path)
    if net.padding != padding:
        raise ValueError(
            f"{path.name} was trained with padding {padding!r}, the net has {net.padding!r}:"
            f" construct it as MobileNetV2(padding={padding!r})"
        )
    folded = _is_folded(state, path)
    classifier = _fit_classifier(net, state)
    own = net.state_dict()
    wanted = {name for name in own if not name.endswith(_COUNTER)}
    given = {name for name in state if not name.endswith(_COUNTER)}
    if not classifier:
        wanted -= {"classifier.1.weight", "classifier.1.bias"}
    wrong = [
        f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in sorted(wanted & given)
        if state[name].shape != own[name].shape
    ]
    if wanted != given or wrong:
        raise ValueError(
            f"Expected the parameters of MobileNetV2 1.0 in {path.name};"
            f" missing {sorted(wanted - given)[:5]}, surplus {sorted(given - wanted)[:5]},"
            f" misshapen {wrong[:5]}"
        )
    net.load_state_dict({name: state[name] for name in wanted}, strict=False)
    if folded:
        _make_identity(net)
    mean, std = _INPUT[padding]
    return Pretrained(padding, mean, std, folded, classifier)


def _read(path: Path) -> tuple[dict[str, Tensor], Padding]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        padding: Padding = "same" if "SAME" in metadata.get("padding", "").upper() else "symmetric"
    elif path.suffix == ".pth":
        # weights_only: tensors alone, no code of the pickle runs
        state = torch.load(path, map_location="cpu", weights_only=True)
        padding = "symmetric"
    else:
        raise ValueError(f"Expected a .safetensors or .pth file, got {path.name}")
    return {name: value.float() for name, value in state.items()}, padding


def _is_folded(state: dict[str, Tensor], path: Path) -> bool:
    """True for identity statistics everywhere; a file that is folded in part is refused."""
    identity = [
        bool((value == (1 if name.endswith("running_var") else 0)).all())
        for name, value in state.items()
        if name.endswith(("running_mean", "running_var"))
    ]
    if any(identity) and not all(identity):
        raise ValueError(f"{path.name}: batch norm is folded in {sum(identity)} places, not in all")
    return bool(identity) and all(identity)


def _fit_classifier(net: MobileNetV2, state: dict[str, Tensor]) -> bool:
    """Make `state`'s classifier fit the net, or take it out; True where it stays."""
    names = ("classifier.1.weight", "classifier.1.bias")
    classes = net.state_dict()[names[1]].shape[0]
    given = {state[name].shape[0] for name in names if name in state}
    if given == {classes}:
        return True
    if given == {IMAGENET_CLASSES + 1} and classes == IMAGENET_CLASSES:
        for name in names:
            state[name] = state[name][1:]
        return True
    for name in names:
        state.pop(name, None)
    return False


def _make_identity(net: MobileNetV2) -> None:
    """Take out what is left of TensorFlow's epsilon (1e-3; here 1e-5): x / sqrt(1 + eps) * weight.

    The folded file carries weight = sqrt(1 + 1e-3); over 52 layers the difference adds up.
    """
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BatchNorm2d):
                module.weight.mul_(((1 + module.eps) / (1 + 1e-3)) ** 0.5)
