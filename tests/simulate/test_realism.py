"""The measures of the realism report, on images whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from triage.simulate.fields import Dice
from triage.simulate.noise import Noise
from triage.simulate.realism import report
from triage.simulate.realism.measure import (
    Sample,
    edge_rise,
    measure,
    noise_spectrum,
    slice_correlation,
    spectrum_distance,
)
from triage.simulate.realism.published import USUAL, usual
from triage.types import Phase


def ball(grain: float, shared: float, sigma_mm: float, *, simulated: bool = True) -> Sample:
    """A "liver" of 110 HU, a cylinder of 60 mm radius in fat, with noise of 10 HU."""
    n, slices, pixel = 220, 12, 0.8
    axis = (np.arange(n) - n / 2) * pixel
    inside = np.hypot(axis[:, None], axis[None, :]) < 60
    plane = np.where(inside, 110.0, -100.0)
    plane = gaussian_filter(plane, sigma_mm / pixel)
    noise = Noise((n, n), (pixel, pixel), grain, shared, Dice(1))(slices).numpy()
    hu = (plane[None] + 10 * noise).transpose(1, 2, 0).astype(np.float32)
    mask = np.repeat(inside[:, :, None], slices, 2)
    masks = {"liver": mask}
    return Sample("ball", Phase.PORTAL_VENOUS, hu, (pixel, pixel, 3.0), masks, simulated)


def test_attenuation_noise_and_its_correlation_are_found() -> None:
    row = measure(ball(0.9, 0.4, 0.7))
    assert row["hu"]["liver"]["mean"] == pytest.approx(110, abs=1)
    assert row["hu"]["liver"]["sd"] == pytest.approx(10, abs=1)
    assert row["slice_correlation"] == pytest.approx(0.4, abs=0.08)
    assert row["noise"]["peak_frequency"] == pytest.approx(0.188 / 0.9, abs=0.04)


@pytest.mark.parametrize("sigma", [0.8, 1.6])
def test_the_rise_of_an_edge_is_that_of_its_blur(sigma: float) -> None:
    sample = ball(0.9, 0.1, sigma)
    sample.hu = np.repeat(sample.hu.mean(2, keepdims=True), 12, 2)  # calm
    found = edge_rise(sample, "liver")
    assert found is not None
    assert found["median"] == pytest.approx(2.563 * sigma, abs=0.7)  # 10-90 % of a Gaussian


def test_spectra_of_one_kernel_are_nearer_than_those_of_two() -> None:
    a, b, c = (noise_spectrum(ball(g, 0.1, 0.7)) for g in (0.6, 0.62, 1.3))
    assert a and b and c
    assert spectrum_distance(a, a) == 0
    assert spectrum_distance(a, b) < 0.1 < spectrum_distance(a, c)


def test_too_little_is_no_measure() -> None:
    sample = ball(0.9, 0.1, 0.7)
    sample.masks = {"liver": np.zeros_like(sample.masks["liver"])}
    assert noise_spectrum(sample) is None and edge_rise(sample, "liver") is None
    sample.masks = {}
    assert slice_correlation(sample) is None


def test_published_ranges_name_their_basis() -> None:
    assert all(u.low < u.high and u.basis in {"paper", "textbook"} and u.source for u in USUAL)
    assert usual("aorta", Phase.ARTERIAL) is not None and usual("skull", Phase.PLAIN) is None


def test_the_report_says_what_agrees_and_what_not(tmp_path: Path) -> None:
    rows = [measure(ball(0.9, 0.1, 0.7)), measure(ball(0.9, 0.1, 0.7, simulated=False))]
    rows[0]["hu"]["liver"]["mean"] = 300.0
    report.write(rows, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())["comparison"]
    assert [h["agrees"] for h in found["hu"] if h["structure"] == "liver"] == [False]
    assert found["spectra"][0]["agrees"] and all(r["agrees"] for r in found["ranges"])
    assert "**no**" in (tmp_path / "report.md").read_text()
    pictures = [("ball", report.preview(ball(0.9, 0.1, 0.7)))]
    report.montage(pictures, tmp_path / "montage.png")
    report.plot_spectra(rows, tmp_path / "spectra.png")
    assert (tmp_path / "montage.png").stat().st_size > 1000
