"""Noise power, metal, steps and truncation on volumes whose truth is known."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from triage.imaging.artefacts import artefacts
from triage.types import Series, Volume

SPACING = (1.0, 1.0, 2.0)


def volume(hu: torch.Tensor) -> Volume:
    affine = torch.diag(torch.tensor([*SPACING, 1.0]))
    return Volume(MetaTensor(hu[None], affine=affine), (), Series("", "", ()))


def body(sd: float = 0.0, radius: float = 60.0) -> torch.Tensor:
    """A cylinder of soft tissue in air, 160 x 160 x 30."""
    axis = torch.arange(160.0) - 79.5
    inside = (axis[:, None] ** 2 + axis**2 < radius**2)[:, :, None].expand(160, 160, 30)
    noise = sd * torch.randn(160, 160, 30, generator=torch.Generator().manual_seed(1))
    return torch.where(inside, 60.0 + noise, -1000.0)


@pytest.mark.parametrize("sd", [5.0, 15.0])
def test_the_spectrum_of_white_noise_has_its_variance(sd: float) -> None:
    found = artefacts(volume(body(sd)))
    assert found["noise_power_sd_hu"] == pytest.approx(sd, rel=0.08)
    # white noise: frequencies up to the corner of the plane, on average 0.38 / mm at 1 mm pixels
    assert found["noise_power_mean_per_mm"] == pytest.approx(0.38, abs=0.03)


def test_smooth_noise_has_lower_frequencies() -> None:
    rough = body(20.0)
    smooth = torch.nn.functional.avg_pool3d(rough[None, None], (3, 3, 1), 1, (1, 1, 0))[0, 0]
    means = [artefacts(volume(x))["noise_power_mean_per_mm"] for x in (smooth, rough)]
    assert means[0] is not None and means[1] is not None and means[0] < 0.7 * means[1]


def test_without_soft_tissue_there_is_no_figure() -> None:
    found = artefacts(volume(torch.full((160, 160, 30), -1000.0)))
    assert found["noise_power_sd_hu"] is None and found["truncated_fraction"] == 0


def test_metal_steps_and_truncation() -> None:
    clean = body(5.0)
    faulty = clean.clone()
    faulty[60:70, 60:70, 5:10] = 3000.0
    faulty[:, :, 15:] = faulty[:, :, 15:].roll(20, 0)
    before, after = artefacts(volume(clean)), artefacts(volume(faulty))
    assert before["metal_ml"] == 0 and after["metal_ml"] == pytest.approx(1.0, abs=0.5)
    assert (before["step"] or 9) < 2 < (after["step"] or 0)
    assert before["truncated_fraction"] == 0
    assert artefacts(volume(body(5.0, radius=95.0)))["truncated_fraction"] == 1
