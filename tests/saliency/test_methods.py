"""The dear explanations: what they add up to, where they lie, and that they can be told apart."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from monai.data import MetaTensor

from triage.inference.crops import VIEWS, Region, cut
from triage.inference.engines.torch_engine import TorchEngine
from triage.inference.localise import describe
from triage.inference.programs import Programs
from triage.inference.score import (
    Evidence,
    Looked,
    coarse_labels,
    pool_slices,
    run_volume,
    volume_input,
)
from triage.nets.slice_net import SliceEnsembles
from triage.nets.volume_net import POOL, VolumeNet
from triage.saliency import methods
from triage.saliency.attribution import explain
from triage.saliency.methods import AROUND, Captum, blurred, carrying
from triage.saliency.names import Method
from triage.types import ORGAN_LABEL, TARGETS, Anatomy, Organ, Target

AFFINE = torch.diag(torch.tensor([1.5, 1.5, 3.0, 1.0], dtype=torch.float64))
T = TARGETS.index(Target.LIVER)
DEAR = [m for m in Method if m not in (Method.MAP, Method.GRADCAM)]


@pytest.fixture(scope="module")
def patient() -> tuple[SimpleNamespace, Evidence, MetaTensor, Anatomy]:
    """A liver with a dark spot, and small networks that nobody trained."""
    torch.manual_seed(1)
    slices, volume = SliceEnsembles(1, size=64).eval(), VolumeNet(4).eval()
    torch.nn.init.normal_(volume.map.weight)
    cpu = torch.device("cpu")
    programs = Programs(TorchEngine(cpu), "small", SimpleNamespace(net=None), slices, volume)  # type: ignore[arg-type]
    nets = SimpleNamespace(slices=slices, volume=volume, device=cpu, programs=programs)
    labels = torch.zeros(96, 80, 16, dtype=torch.uint8)
    labels[30:70, 20:60, 3:13] = ORGAN_LABEL[Organ.LIVER]
    hu = torch.full(labels.shape, -60.0)
    hu[labels > 0] = 110.0
    hu[44:54, 34:44, 6:10] = 30.0
    grid = MetaTensor(hu[None] + 5 * torch.randn(1, *labels.shape), affine=AFFINE)
    anatomy = describe(labels, AFFINE)
    view = VIEWS[Target.LIVER][0]
    where = Region((50.0, 40.0), 3, 13)
    judged = [5, 7]
    features = programs.features(cut(grid[0], judged, where.centre, view, 1.5, size=64), 17)
    maps = programs.maps(Target.LIVER, features)
    logits = programs.pooled(Target.LIVER, maps)
    evidence = Evidence({Target.LIVER: [Looked(view, where, judged, features, logits, maps=maps)]})
    run_volume(nets, grid, anatomy, evidence)  # type: ignore[arg-type]
    return nets, evidence, grid, anatomy


def test_weights_of_slices_are_those_of_the_pooled_logit() -> None:
    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    weights = carrying(logits)
    assert float(weights.sum()) == pytest.approx(1.0)
    assert float((weights * logits.mean(0)).sum()) == pytest.approx(pool_slices(logits), abs=1e-5)
    assert 0 < int((weights > 0).sum()) <= 9


def test_integrated_gradients_add_up(patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the volume: to what its logit has more than that of the blurred one (completeness).

    It holds for a path of many steps; the logits of a net that nobody trained differ by little.
    """
    monkeypatch.setattr(methods, "STEPS", 48)
    nets, evidence, grid, anatomy = patient
    given = volume_input(grid.as_tensor(), coarse_labels(anatomy.labels.as_tensor()[0]))
    if min(given.regions.shape[2:]) > 2 * AROUND:
        raise AssertionError("the whole patient is one piece here")
    with torch.no_grad():
        full, empty = (
            float(nets.volume(hu, given.regions, given.levels)[0][0, T])
            for hu in (given.hu, blurred(given.hu))
        )
    found = Captum(nets, evidence, grid, anatomy, Method.INTEGRATED_GRADIENTS).volume(Target.LIVER)
    per_place = POOL[0] * POOL[1] * POOL[2]  # the map holds means over its places
    assert float(found.sum()) * per_place == pytest.approx(full - empty, rel=0.15, abs=0.02)


@pytest.mark.parametrize("method", DEAR)
def test_every_method_gives_a_signed_map_where_the_organ_is(
    patient, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "STEPS", 3)
    monkeypatch.setattr(methods, "DRAWS", 2)
    nets, evidence, grid, anatomy = patient
    how = Captum(nets, evidence, grid, anatomy, method)
    slices = how.slices(Target.LIVER, evidence.looked[Target.LIVER][0])
    assert slices.shape == (2, 16, 16) and bool(torch.isfinite(slices).all())
    again = how.slices(Target.LIVER, evidence.looked[Target.LIVER][0])
    assert torch.equal(slices, again)  # its dice are seeded
    field = explain(nets, evidence, anatomy, Target.LIVER, (0.0, 1.0), how)
    values = field.as_tensor()[0]
    assert float(values.abs().max()) == pytest.approx(1.0)
    assert not bool(values[:15].any())  # 20 mm and more from the organ


def test_slices_that_do_not_carry_the_decision_are_zero(patient) -> None:
    nets, evidence, grid, anatomy = patient
    one = evidence.looked[Target.LIVER][0]
    logits = torch.zeros(1, 14)
    logits[0, 4:7] = 3.0
    looked = replace(one, features=one.features[:1].repeat(14, 1, 1, 1), logits=logits)
    maps = Captum(nets, evidence, grid, anatomy, Method.GRADCAM).slices(Target.LIVER, looked)
    assert [bool(m.any()) for m in maps] == [3 <= k <= 7 for k in range(14)]
