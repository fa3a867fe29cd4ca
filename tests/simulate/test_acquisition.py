"""The scanner's view: sampling, noise, field of view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from triage.simulate.acquisition import SLICES, Frame, Noise, draw_frame, outline, sampling, table
from triage.simulate.fields import Dice, Grid

GRID = Grid((90, 70, 80), (4.0, 4.0, 5.0), (-180.0, -140.0, -200.0))


def body() -> torch.Tensor:
    """An elliptical trunk of 40 HU in air, HU (X, Y, Z)."""
    x, y = GRID.axis(0)[:, None, None], GRID.axis(1)[None, :, None]
    inside = ((x / 160) ** 2 + (y / 110) ** 2 < 1).expand(GRID.shape)
    return torch.where(inside, 40.0, -1000.0)


@given(st.floats(0.3, 5), st.floats(0.5, 4), st.floats(0, 3), st.floats(-3, 3))
def test_sampling_keeps_a_constant(point: float, step: float, sigma: float, start: float) -> None:
    points = start + step * 40 + np.array([0.0, point, 2 * point])
    for extend in (True, False):
        weights = sampling(start, step, 100, points, sigma, extend=extend)
        assert weights.sum(1).numpy() == pytest.approx(1.0, abs=1e-4)


def test_sampling_beyond_the_ends() -> None:
    far = np.array([-50.0, 150.0])
    assert sampling(0, 1, 100, far, 0.6, extend=False).sum() == 0
    assert sampling(0, 1, 100, far, 0.6, extend=True)[:, [0, -1]].sum() > 1


@pytest.mark.parametrize("grain", [0.5, 1.4])
def test_noise_has_unit_sd_and_the_spectrum_of_a_ct(grain: float) -> None:
    frame = Frame(256, 20, 0.8, 2.0, 4.0, (0, 0, 0), (0, 0, 0))
    maker = Noise(frame, grain, Dice(4))
    noise = torch.cat([maker(8), maker(12)])
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)
    power = torch.fft.fft2(noise).abs().square().mean(0).numpy()
    f = np.fft.fftfreq(256, 0.8)
    ring = np.rint(np.hypot(f[:, None], f) / 0.02).astype(int)
    radial = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    assert radial[0] < 0.35 * radial.max()  # rises from zero
    assert 0.02 * float(np.argmax(radial)) == pytest.approx(0.188 / grain, rel=0.15)
    next_one = float((noise[:-1] * noise[1:]).mean())
    assert 0.3 < next_one < 0.7  # slices of 4 mm every 2 mm


@given(st.integers(0, 200))
def test_frame_holds_the_body(seed: int) -> None:
    hu = body()
    frame = draw_frame(hu, GRID, 512, Dice(seed))
    assert 0.7 <= frame.pixel_mm <= 0.95 and 1 <= frame.thickness_mm <= 5
    assert SLICES[0] <= frame.slices <= SLICES[1]
    z = frame.points(2)
    assert z[0] >= GRID.origin[2] - 2.5 and z[-1] <= GRID.origin[2] + 79 * 5 + 2.5
    assert frame.points(0).max() > 160 and frame.points(0).min() < -160


def test_table_lies_under_the_back() -> None:
    hu = body()
    frame = draw_frame(hu, GRID, 256, Dice(1))
    board = table(hu, GRID, frame, Dice(2))
    found = (board > -900).nonzero()
    y = torch.from_numpy(frame.points(1))
    assert len(found) and float(board.max()) < 100
    middle = found[(found[:, 1] - 128).abs() < 5, 0]
    assert float(y[middle].max()) < -105  # the back is at -110 mm
    assert outline(hu).any()


def test_an_image_of_air_is_refused() -> None:
    with pytest.raises(ValueError, match="no body"):
        draw_frame(torch.full(GRID.shape, -1000.0), GRID, 512, Dice(1))
