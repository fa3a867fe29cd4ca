"""The volume net: shapes, regions, and that a piece and a whole abdomen are treated alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from triage.nets.volume_net import GRADED, NOWHERE, TOP, Residual, VolumeNet, levels_of
from triage.types import ORGAN_LABEL, TARGETS, Organ, Target

LIVER, SPLEEN = TARGETS.index(Target.LIVER), TARGETS.index(Target.SPLEEN)


def people(x: int = 24, y: int = 16, z: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """HU, regions (liver at low x, spleen at high x) and levels."""
    torch.manual_seed(0)
    regions = torch.zeros(1, 4, x, y, z)
    regions[:, 0, :4] = 1
    regions[:, 1, -4:] = 1
    return (
        torch.randn(1, 1, 2 * x, 2 * y, z) * 60 + 50,
        regions,
        torch.tensor([[90.0, 95, 60, 40, 150]]),
    )


@pytest.fixture
def net() -> VolumeNet:
    torch.manual_seed(1)
    return VolumeNet(4).eval()


@torch.no_grad()
def test_shapes(net: VolumeNet) -> None:
    study, grade, lesion = net(*people())
    assert study.shape == (1, len(TARGETS)) and grade.shape == (1, len(GRADED))
    assert lesion.shape == (1, len(TARGETS), 24, 16, 16)


@torch.no_grad()
def test_a_target_reads_its_own_region(net: VolumeNet) -> None:
    """Lesion-like features beside the spleen speak for spleen and blush, not for the liver."""
    _, regions, _ = people()
    quiet = torch.zeros(1, 4, 24, 16, 16)
    loud = quiet.clone()
    loud[..., -3:, 8, 8] = 50.0
    net.map.weight.fill_(0.1)
    before, _, _ = net.heads(quiet, regions)
    after, _, _ = net.heads(loud, regions)
    moved = (after - before)[0].abs() > 1e-3
    assert moved.tolist() == [t in (Target.SPLEEN, Target.EXTRAVASATION) for t in TARGETS]


@torch.no_grad()
def test_without_its_organ_a_target_is_quiet(net: VolumeNet) -> None:
    hu, regions, levels = people()
    regions[:, 1] = 0
    study, _, _ = net(hu, regions, levels)
    head = net.study[SPLEEN]
    lowest = torch.full((1, len(TOP)), NOWHERE)
    assert float(study[0, SPLEEN]) == pytest.approx(float(head(lowest)))


@torch.no_grad()
def test_a_piece_is_seen_as_the_whole_is(net: VolumeNet) -> None:
    """Away from the border the lesion map does not depend on how much else was given."""
    hu, regions, levels = people(48, 32, 32)
    whole = net(hu, regions, levels)[2]
    piece = net(hu[:, :, 16:80, :, :], regions[:, :, 8:40], levels)[2]
    assert torch.allclose(
        whole[:, :, 20:28, 12:20, 12:20], piece[:, :, 12:20, 12:20, 12:20], atol=1e-4
    )


def test_wrong_grids_are_refused(net: VolumeNet) -> None:
    hu, regions, levels = people()
    with pytest.raises(ValueError, match="got"):
        net(hu[:, :, ::2], regions, levels)
    with pytest.raises(ValueError, match="levels"):
        net(hu, regions, levels[:, :4])


def test_levels_are_medians_of_regions_and_blood() -> None:
    labels = torch.zeros(6, 6, 6)
    labels[..., :3] = ORGAN_LABEL[Organ.LIVER]
    labels[..., 3, :2] = ORGAN_LABEL[Organ.KIDNEY_LEFT]
    hu = torch.where(labels == ORGAN_LABEL[Organ.LIVER], 104.0, -20.0)
    assert levels_of(hu, labels).tolist() == [104.0, 60.0, -20.0, 60.0, 60.0]
    labels[..., 4, 0], hu[..., 4, 0] = ORGAN_LABEL[Organ.AORTA], 180.0
    assert levels_of(hu, labels).tolist()[-1] == 180.0


@torch.no_grad()
def test_an_older_net_is_taken_up_and_answers_as_before(net: VolumeNet) -> None:
    torch.manual_seed(2)
    older = VolumeNet(4, blood=False).eval()
    hu, regions, levels = people()
    with pytest.raises(RuntimeError):
        net.load_state_dict(older.state_dict())
    net.take_up(older.state_dict())
    assert torch.allclose(net(hu, regions, levels)[0], older(hu, regions, levels)[0], atol=1e-5)
    assert net.told.weight.shape[1] == older.told.weight.shape[1] + 1
    net.take_up(net.state_dict())  # one of its own kind as ever


def test_a_deeper_net_goes_on_from_what_a_net_knows(net: VolumeNet) -> None:
    torch.manual_seed(3)
    deep = VolumeNet(4, deep=True).eval()
    hu, regions, levels = people()
    deep.take_up(net.state_dict())
    for own, given in zip(deep(hu, regions, levels), net(hu, regions, levels), strict=True):
        assert torch.equal(own, given)  # the new blocks count for nothing yet
    deep.train()
    deep(hu, regions, levels)[2].square().mean().backward()
    for block in (deep.middle, deep.fine):
        assert isinstance(block, Residual)
        assert float(block.inner[-1].weight.grad.abs().max()) > 0  # and they can learn
    with pytest.raises(RuntimeError):
        net.take_up(deep.state_dict())  # not the other way


@torch.no_grad()
def test_the_blood_is_heard(net: VolumeNet) -> None:
    hu, regions, levels = people()
    brighter = levels.clone()
    brighter[:, -1] += 60
    older = VolumeNet(4, blood=False).eval()
    for one, hears in ((net, True), (older, False)):
        same = torch.equal(one(hu, regions, levels)[2], one(hu, regions, brighter)[2])
        assert same is not hears
