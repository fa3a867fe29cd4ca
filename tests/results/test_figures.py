"""Figures hold numbers and terms alone; what a bundle keeps of many comes back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from triage.results.figures import NUMBERS, SHARES, Figures, Many, figures_of

REPORT = {
    "status": "analysed",
    "study_instance_uid": "1.2.3.4",
    "series": [{"series_instance_uid": "1.2.3", "phase": "portal_venous", "slices": 120}],
    "quality": [
        {
            "series_instance_uid": "1.2.3",
            "noise_hu": 12.25,
            "spacing_mm": [0.7, 0.7, 2.5],
            "tissue_hu": {"liver": 105.0, "spleen": None, "kidney": 170.5, "aorta": 150.0},
        }
    ],
    "targets": {
        "liver": {"verdict": "suspected", "probability": 0.8, "reason": None},
        "bowel": {"verdict": "not_assessed", "probability": None, "reason": "NO_CONTRAST"},
    },
    "warnings": ["GAP: series 1.2.3"],
}


def test_figures_of_a_report() -> None:
    found = figures_of(REPORT)
    assert found.numbers == {
        **{"slices": 120.0, "noise_hu": 12.25, "pixel_mm": 0.7, "slice_mm": 2.5},
        **{"liver_hu": 105.0, "kidney_hu": 170.5, "aorta_hu": 150.0, "score.liver": 0.8},
    }
    assert found.terms == {
        **{"outcome": "analysed", "phase": "portal_venous"},
        **{"verdict.liver": "suspected", "verdict.bowel": "not_assessed"},
    }
    assert "1.2.3" not in json.dumps([found.numbers, found.terms])


def test_a_refused_study_says_why() -> None:
    report = {"status": "not_analysed", "reason": {"code": "GAP"}, "series": [], "targets": {}}
    assert figures_of(report) == Figures({}, {"outcome": "GAP"})
    assert figures_of({}) == Figures({}, {})


def test_what_a_bundle_keeps_comes_back() -> None:
    rng = np.random.default_rng(0)
    every = [
        Figures(dict.fromkeys(NUMBERS, float(x)), dict.fromkeys(SHARES, "a" if x > 0 else "b"))
        for x in rng.normal(size=250)
    ]
    many = Many.of(every)
    back = Many.from_bytes(many.to_bytes())
    assert back.studies == 250 and back.sizes == many.sizes and back.counts == many.counts
    for name in NUMBERS:
        assert np.isclose(back.numbers[name][50], np.median(many.numbers[name]), atol=1e-3)
        assert len(back.numbers[name]) == 101


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema_version": "2", "studies": 1, "numbers": {}, "shares": {}}',
        b'{"schema_version": "1", "studies": 1, "numbers": {"a": {}}, "shares": {}}',
        b'{"schema_version": "1", "studies": 1, "shares": {},'
        b' "numbers": {"a": {"studies": 0, "quantiles": [1]}}}',
        b'{"schema_version": "1", "studies": 1, "shares": {},'
        b' "numbers": {"a": {"studies": 9, "quantiles": [NaN]}}}',
        b"[" * 100_000,
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        Many.from_bytes(content)
