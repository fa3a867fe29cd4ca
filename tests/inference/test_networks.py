"""Bundles with and without the optional parts: loaded, run and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from triage.inference.localise import describe
from triage.inference.networks import Networks, load_networks
from triage.inference.score import gather, pool_slices, to_score
from triage.nets.bundle import BundleError
from triage.nets.localiser import Localiser, localiser_of
from triage.nets.sequence_head import SequenceHead, SequenceHeads
from triage.nets.slice_net import SliceEnsembles
from triage.nets.volume_net import VolumeNet
from triage.saliency.attribution import explain
from triage.training.assemble import neutral_table, write
from triage.types import ORGAN_LABEL, TARGETS, Organ, Target

AFFINE = torch.diag(torch.tensor([1.5, 1.5, 3.0, 1.0], dtype=torch.float64))


def bundle(folder: Path, volume: VolumeNet, **more: Any) -> Path:
    torch.manual_seed(0)
    slices = SliceEnsembles({t.value: int(t is Target.LIVER) for t in TARGETS})
    return write(
        folder,
        version="1",
        localiser=Localiser(4),
        slices=slices,
        volume=volume,
        cutoffs=neutral_table(),
        provenance={},
        card="A card.",
        extra={},
        **more,
    )


def body() -> tuple[MetaTensor, Any]:
    """A liver in fat, (1, 72, 64, 20) on the working grid."""
    labels = torch.zeros(72, 64, 20, dtype=torch.uint8)
    labels[20:52, 16:48, 4:16] = ORGAN_LABEL[Organ.LIVER]
    noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    hu = torch.where(labels > 0, 110.0, -90.0) + 15 * noise
    return MetaTensor(hu[None], affine=AFFINE), describe(labels, AFFINE)


def lively() -> SequenceHeads:
    torch.manual_seed(3)
    heads = SequenceHeads({Target.LIVER.value: 160})
    head = heads.heads[Target.LIVER.value]
    assert isinstance(head, SequenceHead)
    torch.nn.init.normal_(head.out.weight)
    return heads


def test_the_volume_net_answers(tmp_path: Path) -> None:
    nets = load_networks(bundle(tmp_path / "b", VolumeNet(4)), "cpu")
    assert nets.sequence is None
    grid, anatomy = body()
    evidence = gather(nets, grid, anatomy)
    assert evidence.volume_logits is not None and evidence.volume_logits.shape == (len(TARGETS),)
    score = to_score(Target.LIVER, evidence, grid)
    assert score is not None and score.ensemble == score.pooled["top"]
    assert score.volume == pytest.approx(float(evidence.volume_logits[TARGETS.index(Target.LIVER)]))
    saliency = explain(nets, evidence, anatomy, Target.LIVER, (0.5, 0.5))
    assert saliency.shape == grid.shape and 0 < float(saliency.abs().max()) <= 1


def test_the_sequence_head_answers_where_there_is_one(tmp_path: Path) -> None:
    plain = load_networks(bundle(tmp_path / "a", VolumeNet(4)), "cpu")
    with_head = load_networks(bundle(tmp_path / "b", VolumeNet(4), sequence=lively()), "cpu")
    assert with_head.sequence is not None and Target.LIVER in with_head.sequence
    assert Target.SPLEEN not in with_head.sequence
    grid, anatomy = body()

    def answer(nets: Networks) -> Any:
        evidence = gather(nets, grid, anatomy)
        return evidence, to_score(Target.LIVER, evidence, grid)

    (_, without), (evidence, score) = answer(plain), answer(with_head)
    [seen] = evidence.looked[Target.LIVER]
    assert score.pooled == without.pooled and without.ensemble == pool_slices(seen.logits)
    assert score.ensemble == seen.sequence != without.ensemble
    assert score.slice_z.diff().tolist() == [6.0] * (len(seen.slices) - 1)
    one = explain(plain, answer(plain)[0], anatomy, Target.LIVER, (1.0, 0.0))
    two = explain(with_head, evidence, anatomy, Target.LIVER, (1.0, 0.0))
    assert torch.equal(one.as_tensor(), two.as_tensor())  # where it looks is what members look at


def test_kidneys_go_to_their_edges_where_the_bundle_was_measured_so(tmp_path: Path) -> None:
    assert load_networks(bundle(tmp_path / "b", VolumeNet(4)), "cpu").localiser.edges
    assert not localiser_of({"kind": "UNet", "width": 16}).edges  # of a bundle before 0.6


@pytest.mark.parametrize("deep", [False, True])
def test_a_volume_net_comes_back_as_it_was_built(tmp_path: Path, deep: bool) -> None:
    given = VolumeNet(4, deep=deep)
    found = load_networks(bundle(tmp_path / "b", given), "cpu").volume
    assert found.architecture == given.architecture
    assert found.state_dict().keys() == given.state_dict().keys()


def test_a_volume_net_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    strange = VolumeNet(4)
    strange.architecture["kind"] = "Oracle"
    with pytest.raises(BundleError, match="LesionMap"):
        load_networks(bundle(tmp_path / "b", strange), "cpu")
