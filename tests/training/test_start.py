"""What a training starts from: the same function as before, wherever the members branch off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from triage.inference.networks import Networks, load_networks
from triage.nets.bundle import find_bundle
from triage.nets.mobilenet_v2 import MobileNetV2
from triage.nets.slice_net import Tail
from triage.nets.weights import Pretrained
from triage.training.members import _layers
from triage.training.start import (
    UNFROZEN,
    StartError,
    Trained,
    assembled,
    fit_input,
    from_bundle,
    from_nothing,
    from_weights,
)
from triage.types import TARGETS, Target

X = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)


@pytest.fixture(scope="module")
def base() -> Networks:
    return load_networks(find_bundle("reference"), "cpu")


@pytest.mark.parametrize("name", UNFROZEN)
@torch.no_grad()
def test_a_new_member_starts_as_the_old_one(base: Networks, name: str) -> None:
    shared, unfrozen = UNFROZEN[name]
    begin = from_bundle(base)
    tails = [begin.tail(Target.LIVER, shared, k).eval() for k in range(2)]
    new = assembled(begin, {Target.LIVER: Trained(tails, shared, 64)})
    with_new = new.logits(Target.LIVER, new.features(X, Target.LIVER))
    old = base.slices.logits(Target.LIVER, base.slices.features(X, Target.LIVER))
    assert torch.allclose(with_new, old[:2], atol=1e-5)
    spleen = new.logits(Target.SPLEEN, new.features(X, Target.SPLEEN))
    assert torch.equal(
        spleen, base.slices.logits(Target.SPLEEN, base.slices.features(X, Target.SPLEEN))
    )
    count = len(_layers(tails[0]))
    assert count >= (unfrozen or 0)
    assert unfrozen is None or count - unfrozen in (0, 1)


def test_on_another_trunk_nothing_is_kept(base: Networks) -> None:
    begin = from_nothing(base, seed=1)
    new = assembled(begin, {Target.LIVER: Trained([begin.tail(Target.LIVER, 17, 0)], 17, 224)})
    assert [new.members[t] for t in TARGETS] == [int(t is Target.LIVER) for t in TARGETS]


def test_more_shared_blocks_than_there_are_is_refused(base: Networks) -> None:
    with pytest.raises(StartError, match="18 are needed"):
        from_bundle(base).trunk(18)


def test_weights_from_a_file(base: Networks, shared: Path) -> None:
    begin = from_weights(shared / "weights" / "mobilenet_v2_imagenet.safetensors", base)
    assert not begin.keeps
    assert isinstance(begin.tail(Target.LIVER, 17, 0), Tail)


@torch.no_grad()
def test_the_stem_takes_what_the_pictures_are() -> None:
    """Weights that want ImageNet's mean and deviation answer the same to pictures in [-1, 1]."""
    net = MobileNetV2(num_classes=3).eval()
    told = Pretrained("symmetric", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False, False)
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (told.mean, told.std))
    stem = net.features[0]
    before = stem(((X + 1) / 2 - mean) / std)
    fit_input(net, told)
    assert torch.allclose(stem(X)[..., 1:-1, 1:-1], before[..., 1:-1, 1:-1], atol=1e-4)
