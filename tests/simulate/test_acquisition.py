"""The scanner's view: sampling, noise, field of view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from triage.simulate.acquisition import SLICES, acquire, draw_frame, sampling
from triage.simulate.artefacts import Artefacts
from triage.simulate.fields import Dice, Grid
from triage.simulate.noise import Noise, dose, shared_noise
from triage.simulate.scanner import Scanner, outline, scan, table

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


def spectrum(noise: torch.Tensor, pixel: float) -> np.ndarray:
    """Radial mean of the power, in bins of 0.02 per mm."""
    power = torch.fft.fft2(noise).abs().square().mean(0).numpy()
    f = np.fft.fftfreq(noise.shape[1], pixel)
    ring = np.rint(np.hypot(f[:, None], f) / 0.02).astype(int)
    return np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())


@pytest.mark.parametrize("grain", [0.5, 1.4])
def test_noise_has_unit_sd_and_the_spectrum_of_a_ct(grain: float) -> None:
    maker = Noise((256, 256), (0.8, 0.8), grain, shared_noise(2.0, 4.0), Dice(4))
    noise = torch.cat([maker(8), maker(12)])
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)
    radial = spectrum(noise, 0.8)
    assert radial[0] < 0.35 * radial.max()  # rises from zero
    assert 0.02 * float(np.argmax(radial)) == pytest.approx(0.188 / grain, rel=0.15)
    next_one = float((noise[:-1] * noise[1:]).mean())
    assert 0.3 < next_one < 0.7  # slices of 4 mm every 2 mm


def test_iterative_reconstruction_leaves_coarse_noise() -> None:
    coarse = Noise((256, 256), (0.8, 0.8), 0.9, 0.1, Dice(4), blotch=5.0)(16)
    radial = spectrum(coarse, 0.8)
    assert float(coarse.std()) == pytest.approx(1.0, abs=0.05)
    assert radial[2] > 1.5 * radial[12]


def test_coarse_pixels_lose_the_fine_part_of_the_noise() -> None:
    sd = [float(Noise((90, 80), (p, p), 0.7, 0.1, Dice(1))(12).std()) for p in (0.8, 1.5, 3.0)]
    assert 1.05 > sd[0] > 1.3 * sd[1] > 1.5 * sd[2] > 0


SOFT = Scanner(0.7, 5.0, 8.0, 1.2, 0.0, streaks=0.0, table=False)


def test_both_ways_to_scan_have_the_same_noise() -> None:
    hu, grid = (
        torch.full((120, 110, 24), 40.0),
        Grid((120, 110, 24), (0.8, 0.8, 5.0), (-48, -44, 0)),
    )
    volume = scan(hu, grid, SOFT, Dice(3))
    frame = draw_frame(hu, grid, 120, Dice(2))
    frame = type(frame)(120, 24, 0.8, 5.0, 5.0, (47.6, 47.6, 0.0), (0, 0, 0))
    slices = torch.stack(list(acquire(hu, grid, frame, SOFT, Dice(3), real=False)))
    inside = volume[20:100, 20:90, 2:-2]
    assert float(inside.std()) == pytest.approx(float(slices[2:-2, 30:90, 25:95].std()), rel=0.15)
    one = spectrum(volume[20:100, 20:100].permute(2, 0, 1), 0.8)[1:]
    two = spectrum(slices[:, 20:100, 20:100], 0.8)[1:]
    assert np.abs(one / one.sum() - two / two.sum()).sum() < 0.2


def test_more_patient_more_noise() -> None:
    small, large = (dose(body() if k else body()[20:70], g, 5.0)[0] for k, g in _GRIDS)
    assert large > small
    thin, thick = (dose(body(), GRID, mm)[0] for mm in (1.25, 5.0))
    assert thin > 1.3 * thick


_GRIDS = ((0, Grid((50, 70, 80), GRID.spacing, GRID.origin)), (1, GRID))


def test_streaks_lie_between_dense_bones_and_around_metal() -> None:
    slab = torch.full((2, 80, 100), 40.0)
    slab[:, 38:43, 10:20] = slab[:, 38:43, 80:90] = 1200.0  # the hips
    slab[1, 20, 50] = 2500.0
    made = Artefacts(80, 100, (1.5, 1.5), 1.0, 8.0, Dice(1))(slab.clone())
    assert float(made[0, 38:43, 30:70].mean()) < float(made[0, 60:70, 30:70].mean()) - 2
    change = (made - slab).abs()
    assert float(change[1, 15:26, 45:56].mean()) > 2 * float(change[0, 15:26, 45:56].mean())
    calm = Artefacts(80, 100, (1.5, 1.5), 0.0, 8.0, Dice(1))(slab)
    assert torch.equal(calm, slab)


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
    xs, ys = (torch.from_numpy(frame.points(d)).float() for d in range(2))
    board = table(hu, GRID, xs, ys, Dice(2))
    found = (board > -900).nonzero()
    y = torch.from_numpy(frame.points(1))
    assert len(found) and float(board.max()) < 100
    middle = found[(found[:, 1] - 128).abs() < 5, 0]
    assert float(y[middle].max()) < -105  # the back is at -110 mm
    assert outline(hu).any()


def test_an_image_of_air_is_refused() -> None:
    with pytest.raises(ValueError, match="no body"):
        draw_frame(torch.full(GRID.shape, -1000.0), GRID, 512, Dice(1))
