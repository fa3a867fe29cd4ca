from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from triage.imaging.measure import measure
from triage.types import Series, Volume


def phantom(noise_hu: float, shift: float = 0.0) -> Volume:
    """Air around fat around soft tissue, with white noise."""
    generator = torch.Generator().manual_seed(0)
    hu = torch.full((128, 128, 20), -1000.0)
    hu[16:112, 24:104] = -100.0
    hu[28:100, 36:92] = 60.0
    hu += torch.randn(hu.shape, generator=generator) * noise_hu + shift
    affine = torch.diag(torch.tensor([0.8, 0.8, 5.0, 1.0], dtype=torch.float64))
    return Volume(MetaTensor(hu[None], affine=affine), (), Series("1.2", "1.2.3", ()))


@pytest.mark.parametrize("noise_hu", [5.0, 12.0, 25.0])
def test_noise_is_measured(noise_hu: float) -> None:
    assert measure(phantom(noise_hu))["noise_hu"] == pytest.approx(noise_hu, rel=0.1)


def test_wrong_rescale_values_are_implausible() -> None:
    assert measure(phantom(10.0))["plausible"] is True
    assert measure(phantom(10.0, shift=1024.0))["plausible"] is False
    assert measure(phantom(10.0, shift=-1024.0))["plausible"] is False


def test_without_tissue_there_is_no_noise_level() -> None:
    found = measure(phantom(10.0, shift=-1024.0))
    assert found["noise_hu"] is None
    assert found["soft_tissue_fraction"] == 0
