"""Organs that the ends of a scan cut off, though the localiser loses sight of them there."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from triage.inference.ends import areas, cut_organs
from triage.inference.scope import judge_scope
from triage.nets.localiser import scale
from triage.types import ORGAN_LABEL, Anatomy, Organ, Target

LIVER = ORGAN_LABEL[Organ.LIVER]


def short_sighted(x: Tensor) -> Tensor:
    """A localiser that calls bright voxels liver, but nothing within 24 mm of its input's ends."""
    logits = torch.zeros(1, 8, *x.shape[2:])
    logits[:, LIVER] = torch.where(x[:, 0] > 0, 5.0, -5.0)
    logits[:, LIVER, :, :, :4] = logits[:, LIVER, :, :, -4:] = -5.0
    return logits


@pytest.mark.parametrize(
    ("first", "last", "cut"),
    [(0, 20, True), (30, 40, True), (12, 30, False), (1, 20, False), (39, 40, True)],
)
def test_a_cut_organ_is_seen_at_the_end(first: int, last: int, cut: bool) -> None:
    hu = torch.full((1, 1, 16, 16, 40), -100.0)
    hu[..., 4:12, 4:12, first:last] = 200.0
    found = areas(short_sighted(scale(hu)))
    assert (Organ.LIVER in cut_organs(short_sighted, hu, found)) is cut


def test_an_organ_that_lies_further_in_is_not_cut() -> None:
    """What looks like a liver at the end of the scan, 54 mm below the liver, is something else."""
    hu = torch.full((1, 1, 16, 16, 40), -100.0)
    hu[..., 4:12, 4:12, 12:30] = hu[..., 4:12, 4:12, :3] = 200.0
    found = areas(short_sighted(scale(hu)))
    assert not cut_organs(short_sighted, hu, found)
    hu[..., 4:12, 4:12, 3:12] = 200.0
    found = areas(short_sighted(scale(hu)))
    assert cut_organs(short_sighted, hu, found) == {Organ.LIVER}


def test_thin_slabs_have_both_ends() -> None:
    hu = torch.full((1, 1, 16, 16, 3), 200.0)
    assert cut_organs(short_sighted, hu, areas(short_sighted(scale(hu)))) == {Organ.LIVER}


def test_a_kidney_of_which_the_end_is_seen_is_not_missing() -> None:
    """The other kidney is whole, but nothing may be said of both."""
    labels = torch.zeros(1, 60, 60, 40, dtype=torch.uint8)
    labels[0, 5:25, 20:40, 10:30] = ORGAN_LABEL[Organ.KIDNEY_RIGHT]
    volume = dict.fromkeys(Organ, 0.0) | {Organ.KIDNEY_RIGHT: 54.0, Organ.KIDNEY_LEFT: 3.0}
    whole = dict.fromkeys(Organ, False) | {Organ.KIDNEY_RIGHT: True}
    affine = torch.diag(torch.tensor([1.5, 1.5, 3.0, 1.0], dtype=torch.float64))
    grid = MetaTensor(torch.zeros(1, 60, 60, 40), affine=affine)
    missing = Anatomy(MetaTensor(labels, affine=affine), volume, whole)
    assert Target.KIDNEY not in judge_scope(grid, missing).partial
    cut = Anatomy(missing.labels, volume, whole, frozenset({Organ.KIDNEY_LEFT}))
    assert Target.KIDNEY in judge_scope(grid, cut).partial
