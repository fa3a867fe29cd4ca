"""An attribution lies where the network looked, with its sign."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from monai.data import MetaTensor

from triage.inference.crops import VIEWS, Region
from triage.inference.localise import describe
from triage.inference.score import Evidence, Looked
from triage.saliency.attribution import explain
from triage.types import ORGAN_LABEL, Organ, Target

BIAS = 0.7
AFFINE = torch.from_numpy(np.diag([1.5, 1.5, 3.0, 1.0]))


def _explained(sign: float) -> MetaTensor:
    labels = torch.zeros(160, 140, 20, dtype=torch.uint8)
    labels[60:140, 30:110, 2:18] = ORGAN_LABEL[Organ.LIVER]
    anatomy = describe(labels, AFFINE)
    maps = torch.full((2, 8, 7, 7), BIAS)  # two members whose bias is no reason
    maps[:, 3, 2, 1] += sign  # slice 8: towards the front, on the patient's right
    view = VIEWS[Target.LIVER][0]
    looked = Looked(
        view,
        Region((100.0, 70.0), 2, 18),
        list(range(2, 18, 2)),
        torch.zeros(8, 1, 7, 7),
        torch.zeros(2, 8),
        maps=maps,
    )
    members = [SimpleNamespace(classifier=SimpleNamespace(bias=torch.tensor([BIAS])))] * 2
    nets = SimpleNamespace(slices=SimpleNamespace(of=lambda target: members))
    evidence = Evidence({Target.LIVER: [looked]})
    return explain(nets, evidence, anatomy, Target.LIVER, (1.0, 0.0))  # type: ignore[arg-type]


def test_the_map_is_hot_where_the_feature_was() -> None:
    field = _explained(+1.0).as_tensor()[0]
    x, y, z = np.unravel_index(int(field.argmax()), field.shape)
    cell = VIEWS[Target.LIVER][0].field_mm / 7 / 1.5  # voxels
    assert z == 8
    assert abs(x - (100 + 2 * cell)) < cell
    assert abs(y - (70 + 1 * cell)) < cell
    assert float(field.max()) == 1.0
    assert float(field.min()) >= 0.0


def test_what_speaks_against_is_negative() -> None:
    field = _explained(-1.0).as_tensor()
    assert float(field.min()) == -1.0
    assert float(field.max()) <= 0.0


def test_far_from_the_organ_nothing_is_attributed() -> None:
    field = _explained(+1.0).as_tensor()[0]
    assert float(field[:40].abs().max()) == 0.0
