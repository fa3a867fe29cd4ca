"""MobileNetV2: names, padding, pretrained weights, freezing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from triage.nets.mobilenet_v2 import (
    BatchNorm2d,
    MobileNetV2,
    SameConv2d,
    freeze_batch_norm,
    split,
)
from triage.nets.weights import load_imagenet, padding_of

MILITARY_UNIFORM = 652  # of ImageNet's 1,000 classes


@pytest.fixture
def imagenet(shared: Path) -> Path:
    path = shared / "weights" / "mobilenet_v2_imagenet.safetensors"
    if not path.is_file():
        pytest.skip(f"weights not found at {path}")
    return path


def officer() -> torch.Tensor:
    """matplotlib's photograph of Grace Hopper in uniform: uint8 (1, 3, 224, 224)."""
    from matplotlib.cbook import get_sample_data

    with Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))) as image:
        small = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None]


def test_shared_weights_recognise_a_photograph(imagenet: Path) -> None:
    net = MobileNetV2(num_classes=1000, padding=padding_of(imagenet)).eval()
    loaded = load_imagenet(net, imagenet)
    assert loaded.folded and loaded.classifier and loaded.padding == "same"
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (loaded.mean, loaded.std))
    with torch.inference_mode():
        probabilities = net((officer() / 255 - mean) / std).softmax(1)[0]
    assert int(probabilities.argmax()) == MILITARY_UNIFORM
    assert float(probabilities.max()) > 0.6


def test_frozen_batch_norm_keeps_the_pretrained_function_while_training(imagenet: Path) -> None:
    net = MobileNetV2(num_classes=1000, padding="same", dropout=0.0)
    load_imagenet(net, imagenet)
    x = officer() / 127.5 - 1
    with torch.no_grad():
        expected = net.eval()(x)
        assert (net.train()(x).argmax() != MILITARY_UNIFORM).all()  # what freezing is there for
        load_imagenet(net, imagenet)
        freeze_batch_norm(net)
        frozen = net.train()(x)
    assert torch.allclose(frozen, expected, atol=1e-4)
    assert all(not m.training for m in net.modules() if isinstance(m, BatchNorm2d))


def test_padding_must_fit_the_weights(imagenet: Path) -> None:
    with pytest.raises(ValueError, match="padding 'same'"):
        load_imagenet(MobileNetV2(), imagenet)


def test_torchvision_names_and_size() -> None:
    net = MobileNetV2()
    names = net.state_dict()
    assert sum(p.numel() for p in net.parameters()) == 3_504_872  # torchvision's own figure
    assert len(names) == 314 and len(net.features) == 19
    for name in (
        "features.0.0.weight",
        "features.1.conv.0.0.weight",
        "features.1.conv.2.running_var",
        "features.17.conv.3.num_batches_tracked",
        "features.18.1.bias",
        "classifier.1.weight",
    ):
        assert name in names


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_loads_torchvisions_files(tmp_path: Path, suffix: str) -> None:
    source = MobileNetV2(num_classes=1000)
    for module in source.modules():
        if isinstance(module, BatchNorm2d):
            nn.init.uniform_(module.running_mean, 0.1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    path = tmp_path / f"mobilenet_v2-imagenet1k{suffix}"
    if suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    five = MobileNetV2(num_classes=5)
    loaded = load_imagenet(five, path)
    assert not loaded.classifier and not loaded.folded and loaded.padding == "symmetric"
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(five.eval().features(x), source.eval().features(x))


def test_foreign_parameters_are_refused(tmp_path: Path) -> None:
    state = MobileNetV2().state_dict()
    state.pop("features.3.conv.1.0.weight")
    state["features.0.0.weight"] = torch.zeros(32, 1, 3, 3)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"missing .*features\.3.*misshapen .*features\.0"):
        load_imagenet(MobileNetV2(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("side", [7, 8, 11, 224])
def test_same_padding_is_tensorflows(side: int) -> None:
    """TensorFlow: total = max((ceil(n / s) - 1) * s + k - n, 0), the smaller half comes first."""
    conv = SameConv2d(2, 3, 3, stride=2, bias=False)
    x = torch.randn(1, 2, side, side)
    outputs = -(-side // 2)
    total = (outputs - 1) * 2 + 3 - side
    before, after = total // 2, total - total // 2
    expected = F.conv2d(F.pad(x, (before, after, before, after)), conv.weight, stride=2)
    assert torch.equal(conv(x), expected) and expected.shape[-1] == outputs


def test_split_shares_parameters_and_keeps_names() -> None:
    net = MobileNetV2(num_classes=1, padding="same").eval()
    trunk, tail = split(net, 14)
    x = torch.randn(1, 3, 64, 96)
    features = trunk(x)
    assert features.shape == (1, 96, 4, 6)
    assert torch.equal(tail(features), net.features(x))
    assert next(iter(tail.state_dict())) == "14.conv.0.0.weight"
    assert tail[0].conv[0][0].weight is net.features[14].conv[0][0].weight


def test_a_foreign_batch_norm_cannot_be_frozen() -> None:
    with pytest.raises(TypeError, match="thaw"):
        freeze_batch_norm(nn.Sequential(nn.BatchNorm2d(3)))
