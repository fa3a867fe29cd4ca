"""Calibration and fusion."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.decision.calibration import (
    MIN_SLOPE,
    Calibration,
    fit_calibration,
    prevalence_shift,
)
from triage.decision.fusion import ENSEMBLE_ONLY, VOLUME_ONLY, Fusion, fit_fusion
from triage.decision.logistic import sigmoid

LOGITS = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(LOGITS, st.integers(0, 1)), min_size=2, max_size=50), LOGITS, LOGITS)
def test_calibration_is_monotone_whatever_the_data(
    rows: list[tuple[float, int]], a: float, b: float
) -> None:
    logits, labels = (np.array(column) for column in zip(*rows, strict=True))
    if labels.min() == labels.max():
        with pytest.raises(ValueError, match="positives and negatives"):
            fit_calibration(logits, labels)
        return
    calibration = fit_calibration(logits, labels)
    low, high = calibration.apply(np.array(sorted([a, b])))
    assert calibration.slope >= MIN_SLOPE and 0 < low <= high < 1


def test_calibration_finds_the_truth_and_undoes_balancing() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(-2.5, 1.5, 40_000)
    labels = rng.random(len(truth)) < sigmoid(truth)
    fitted = fit_calibration((truth + 2.5) / 0.7, labels)  # a balanced, overconfident network
    assert abs(fitted.slope - 0.7) < 0.03 and abs(fitted.intercept + 2.5) < 0.05
    assert abs(float(fitted.apply((truth + 2.5) / 0.7).mean()) - labels.mean()) < 1e-3
    # half of the negatives thrown away, put back by weights
    keep = labels | (rng.random(len(labels)) < 0.5)
    weighted = fit_calibration(
        (truth[keep] + 2.5) / 0.7, labels[keep], np.where(labels[keep], 1.0, 2.0)
    )
    assert abs(weighted.slope - fitted.slope) < 0.05
    assert abs(weighted.intercept - fitted.intercept) < 0.1


def test_separated_inverted_and_constant_scores_stay_finite() -> None:
    labels = np.array([0] * 20 + [1] * 5)
    separated = fit_calibration(labels * 10.0, labels)
    np.testing.assert_allclose(separated.apply(np.array([0.0, 10.0])), [1 / 22, 6 / 7], rtol=1e-4)
    for logits in (-3.0 * labels, np.zeros(25)):
        fitted = fit_calibration(logits, labels)
        assert fitted.slope == MIN_SLOPE
        expected = (20 / 22 + 5 * 6 / 7) / 25  # mean of Platt's targets
        assert abs(float(fitted.apply(logits).mean()) - expected) < 1e-6


def test_calibration_refuses_what_is_no_label_or_no_number() -> None:
    for logits, labels in (([0.0, np.nan], [0, 1]), ([0.0, 1.0], [0, 2]), ([0.0], [0, 1])):
        with pytest.raises(ValueError, match="Expected"):
            fit_calibration(np.array(logits), np.array(labels))
    for slope in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="slope"):
            Calibration(slope, 0.0)


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_prevalence_shift(p: float, here: float, there: float) -> None:
    moved = prevalence_shift(p, here, there)
    assert (moved - p) * (there - here) >= -1e-12
    assert prevalence_shift(moved, there, here) == pytest.approx(p)
    assert prevalence_shift(here, here, there) == pytest.approx(there)


def test_fusion_weighs_the_better_branch_and_beats_either() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 1000)
    ensemble = labels + rng.normal(0, 1, 2000)
    volume = 100 * (labels + rng.normal(0, 2, 2000))  # weaker, on another scale
    fusion = fit_fusion(ensemble, volume, labels)
    assert fusion.ensemble == pytest.approx(1.0, abs=0.15)  # closed form: 1 / variance
    assert fusion.volume * 100 == pytest.approx(0.25, abs=0.08)

    def auc(scores: np.ndarray) -> float:
        ranks = scores.argsort().argsort()
        return float((ranks[labels == 1].mean() - 999 / 2) / 1000)  # Mann-Whitney

    fused = np.array([fusion.apply(e, v) for e, v in zip(ensemble, volume, strict=True)])
    assert auc(fused) > max(auc(ensemble), auc(volume))


def test_fusion_weights_are_never_negative_nor_all_zero() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 200)
    good, bad = labels + rng.normal(0, 1, 400), -labels + rng.normal(0, 1, 400)
    alone = fit_fusion(good, bad, labels)
    assert alone.ensemble > 0 and alone.volume == 0
    assert fit_fusion(bad, good, labels).ensemble == 0
    hopeless = fit_fusion(bad, bad + rng.normal(0, 1, 400), labels)
    assert hopeless.ensemble > 0 and hopeless.volume > 0
    separated = fit_fusion(labels * 10.0, labels * 5.0, labels)
    assert 0 < separated.ensemble < 10 and 0 < separated.volume < 10


def test_a_branch_that_has_a_weight_must_answer() -> None:
    assert ENSEMBLE_ONLY.apply(1.5, None) == 1.5 and VOLUME_ONLY.apply(None, -2.0) == -2.0
    for ensemble, volume in ((1.0, None), (None, 1.0)):
        with pytest.raises(ValueError, match="got none"):
            Fusion(0.5, 0.5).apply(ensemble, volume)
    for weights in ((0.0, 0.0), (-1.0, 1.0), (float("inf"), 1.0)):
        with pytest.raises(ValueError, match="Expected"):
            Fusion(*weights)


def test_dictionaries_come_back_through_json() -> None:
    calibration, fusion = Calibration(1 / 3, -2.1), Fusion(0.1 + 0.2, 0.7, -1.0)
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration
    assert Fusion.from_dict(json.loads(json.dumps(fusion.to_dict()))) == fusion
    for data in ({"slope": "1", "intercept": 0}, {"slope": True, "intercept": 0}, {"slope": 1}):
        with pytest.raises(ValueError, match="Expected a number"):
            Calibration.from_dict(data)
