"""The measures of an attribution, on maps of which the answer is known."""

from __future__ import annotations

import pytest
import torch

from triage.inference.localise import describe
from triage.saliency import checks
from triage.types import ORGAN_LABEL, Organ, Target

SPACING = (1.5, 1.5, 3.0)
AFFINE = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))
SHAPE = (40, 40, 20)


def _box(*sides: tuple[int, int]) -> torch.Tensor:
    out = torch.zeros(SHAPE, dtype=torch.bool)
    out[tuple(slice(*s) for s in sides)] = True
    return out


LESION, NEAR = _box((10, 14), (10, 14), (8, 10)), _box((4, 36), (4, 36), (2, 18))


def test_a_lesion_grows_by_millimetres_in_every_direction() -> None:
    grown = checks.grown_lesion(LESION, SPACING, 6.0)
    assert bool(grown[6, 12, 9]) and not bool(grown[5, 12, 9])  # 4 voxels of 1.5 mm
    assert bool(grown[12, 12, 11]) and not bool(grown[12, 12, 12])  # 2 voxels of 3 mm
    assert not bool(grown[6, 6, 6])  # a ball, not a box
    nothing = torch.zeros_like(LESION)
    assert not bool(checks.grown_lesion(nothing, SPACING).any())


def test_pointing_and_shares() -> None:
    field = torch.zeros(SHAPE)
    assert not checks.points_at(field, LESION)  # says nothing
    assert checks.share_inside(field, LESION) == 0
    field[30, 30, 10] = 1.0
    field[12, 12, 9] = 3.0
    field[20, 20, 10] = -9.0
    assert checks.points_at(field, LESION)
    assert checks.share_inside(field, LESION) == pytest.approx(0.75)
    assert not checks.points_at(-field, LESION)
    assert checks.chance(LESION, NEAR) == pytest.approx(32 / (32 * 32 * 16))


def test_the_centre_of_one_kidney_of_two() -> None:
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    labels[8:16, 8:16, 6:12] = ORGAN_LABEL[Organ.KIDNEY_LEFT]
    labels[26:34, 8:16, 6:12] = ORGAN_LABEL[Organ.KIDNEY_RIGHT]
    anatomy = describe(labels, AFFINE)
    grown = checks.grown_lesion(LESION, SPACING)
    assert checks.centre_hits(anatomy, Target.KIDNEY, grown) == 0.5
    assert checks.centre_hits(anatomy, Target.SPLEEN, grown) == 0.0  # there is none


def test_similarity_is_of_what_lies_near() -> None:
    one = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * NEAR
    other = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * NEAR
    one, other = one / one.abs().max(), other / other.abs().max()
    assert checks.similarity(one, one, NEAR) == pytest.approx(1.0)
    assert abs(checks.similarity(one, other, NEAR)) < 0.3


def test_deletion_takes_the_strongest_or_as_many_at_random() -> None:
    field = torch.arange(SHAPE[0], dtype=torch.float32)[:, None, None].expand(SHAPE) * NEAR
    top = checks.strongest(field, NEAR, 0.25)
    assert int(top.sum()) == int(NEAR.sum()) // 4
    assert not bool((top & ~NEAR).any())
    assert float(field[top].min()) >= float(field[NEAR & ~top].max())
    among = checks.random_places(NEAR, int(top.sum()), seed=3)
    assert int(among.sum()) == int(top.sum()) and not bool((among & ~NEAR).any())
    hu = torch.full(SHAPE, 50.0)
    hu[LESION] = -20.0
    changed = checks.without(hu, LESION, NEAR & ~LESION)
    assert float(changed.min()) == 50.0 and float(hu.min()) == -20.0
