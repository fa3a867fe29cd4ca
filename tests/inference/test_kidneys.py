"""Kidneys taken to their edges: on phantoms whose edges are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from triage.inference.kidneys import sharpen
from triage.inference.networks import load_networks
from triage.nets.bundle import find_bundle
from triage.nets.localiser import POOL
from triage.settings import Settings
from triage.training.evaluation.real_ct import organ_dice
from triage.types import ORGAN_LABEL, Organ

SIDES = (96, 96, 60)  # of 1.5 x 1.5 x 3 mm
FAT, MUSCLE, LIVER_HU, KIDNEY_HU = -100.0, 60.0, 105.0, 190.0
RIGHT, LIVER = ORGAN_LABEL[Organ.KIDNEY_RIGHT], ORGAN_LABEL[Organ.LIVER]


def ellipsoid(centre: tuple[float, ...], half: tuple[float, ...]) -> Tensor:
    """Bool (X, Y, Z); centre and half axes in mm from the corner."""
    axes = [(torch.arange(n) + 0.5) * s for n, s in zip(SIDES, (1.5, 1.5, 3.0), strict=True)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    terms = zip((x, y, z), centre, half, strict=True)
    return sum(((v - c) / h) ** 2 for v, c, h in terms) <= 1  # type: ignore[return-value]


KIDNEY = ellipsoid((70, 70, 80), (26, 28, 50))
TOP = ellipsoid((70, 66, 165), (50, 45, 36)) & ~KIDNEY  # liver above it
PSOAS = ellipsoid((112, 70, 90), (15, 18, 80)) & ~KIDNEY


def scan(kidney_hu: float = KIDNEY_HU) -> Tensor:
    hu = torch.full(SIDES, FAT)
    hu[PSOAS], hu[TOP], hu[KIDNEY] = MUSCLE, LIVER_HU, kidney_hu
    noise = torch.randn(SIDES, generator=torch.Generator().manual_seed(0))
    return hu + 8 * noise


def probabilities(kidney: Tensor, liver: Tensor, sure: float = 0.8) -> Tensor:
    """A localiser's (8, x, y, z), not quite sure of what it draws."""
    p = torch.zeros(len(ORGAN_LABEL) + 1, *SIDES)
    p[RIGHT], p[LIVER] = sure * kidney, sure * (liver & ~kidney)
    p[0] = 1 - p[1:].sum(0)
    return F.avg_pool3d(p[None], POOL)[0]


def labels_of(p: Tensor) -> Tensor:
    fine = F.interpolate(p[None], scale_factor=[float(f) for f in POOL], mode="trilinear")[0]
    return fine.argmax(0).to(torch.uint8)


def dice(a: Tensor, b: Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def found(by_mm: int = 18) -> tuple[Tensor, Tensor]:
    """The kidney as a localiser sees it that looks too high, by so much; and the liver."""
    slices = by_mm // 3
    return torch.roll(KIDNEY, slices, 2), TOP


def test_a_kidney_found_too_high_is_taken_to_its_edges() -> None:
    p = probabilities(*found())
    before = labels_of(p)
    after = sharpen(before, p, scan())
    assert dice(before == RIGHT, KIDNEY) < 0.85
    assert dice(after == RIGHT, KIDNEY) > 0.93
    assert dice(after == LIVER, TOP) > dice(before == LIVER, TOP)  # it got back what was taken
    assert after.dtype == before.dtype and after.shape == before.shape
    assert torch.equal(after, sharpen(before, p, scan()))


@pytest.mark.parametrize("hu", [35.0, 60.0, 90.0])
def test_a_kidney_that_is_not_bright_stays_as_it_was(hu: float) -> None:
    p = probabilities(*found())
    before = labels_of(p)
    assert torch.equal(sharpen(before, p, scan(hu)), before)


def test_nothing_is_made_where_no_kidney_was_found() -> None:
    p = probabilities(torch.zeros_like(KIDNEY), TOP)
    before = labels_of(p)
    assert torch.equal(sharpen(before, p, scan()), before)


def test_a_dark_injury_inside_stays_in_the_kidney() -> None:
    blood = ellipsoid((70, 70, 80), (10, 40, 12)) & KIDNEY  # a laceration from edge to edge
    hu = torch.where(blood, 45.0, scan())
    p = probabilities(KIDNEY, TOP)
    after = sharpen(labels_of(p), p, hu) == RIGHT
    assert float(after[blood].float().mean()) > 0.9


def test_a_dark_pole_stays_where_the_localiser_is_sure() -> None:
    pole = KIDNEY & (torch.arange(SIDES[2]) * 3 < 60)  # without blood
    hu = torch.where(pole, 40.0, scan())
    p = probabilities(KIDNEY, TOP, sure=0.97)
    after = sharpen(labels_of(p), p, hu) == RIGHT
    assert float(after[pole].float().mean()) > 0.7


def test_what_is_bright_elsewhere_is_no_kidney() -> None:
    other = ellipsoid((20, 70, 40), (8, 8, 15))  # a loop with contrast, 20 mm away
    hu = torch.where(other, KIDNEY_HU, scan())
    p = probabilities(*found())
    assert not bool(((sharpen(labels_of(p), p, hu) == RIGHT) & other).any())


def test_odd_sides_and_a_kidney_at_the_edge() -> None:
    p = probabilities(*found())
    hu, before = scan(), labels_of(p)
    even = (slice(0, 95), slice(0, 94), slice(12, 60))  # through the lower pole
    after = sharpen(before[even], p[..., 12 // POOL[2] :], hu[even])
    assert after.shape == before[even].shape
    assert dice(after == RIGHT, KIDNEY[even]) > 0.9
    assert np.isin(after.numpy(), [0, LIVER, RIGHT]).all()


def test_low_kidneys_of_a_real_ct_that_trained_nothing(shared: Path) -> None:
    nets = load_networks(find_bundle("reference"), "cpu")
    ct = shared / "ct"
    nets.localiser.edges = True  # 0.68 without
    dice = organ_dice(nets, ct / "portal_abdomen_dicom", ct / "portal_abdomen_organs.nii.gz",
                      Settings())  # fmt: skip
    assert min(dice[Organ.KIDNEY_RIGHT], dice[Organ.KIDNEY_LEFT]) >= 0.85
