"""Cutoffs: no false negative, the certificate, and the joint rate of healthy patients."""

from __future__ import annotations

from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.decision.cutoffs import (
    by_patient,
    misses_quantile,
    rule_in,
    rule_out,
    sensitivity_lower_bound,
)
from triage.decision.score_cutoffs import fit_score_cutoffs
from triage.decision.scores import ScoreTable
from triage.training.evaluation.halves import check_halves
from triage.training.evaluation.rsna_table import read_predictions
from triage.types import TARGETS, Target

# Few distinct values, so that ties are common.
SCORES = st.one_of(st.floats(0, 1), st.integers(0, 10).map(lambda i: i / 10))
LABELLED = st.lists(st.tuples(SCORES, st.integers(0, 1)), min_size=1, max_size=60)


@given(LABELLED)
def test_rule_out_misses_nobody_and_is_the_highest_such(rows: list[tuple[float, int]]) -> None:
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    cutoff = rule_out(scores, labels)
    positive = scores[labels == 1]
    assert cutoff.positives == len(positive)
    assert not (positive < cutoff.cutoff).any()
    if len(positive):
        assert (positive < np.nextafter(cutoff.cutoff, np.inf)).any()
    else:
        assert cutoff.cutoff == 0 and cutoff.sensitivity_lower_bound == 0


def test_bounds_are_the_published_ones() -> None:
    bounds = [round(sensitivity_lower_bound(n), 2) for n in (14, 29, 59, 299)]
    assert bounds == [0.81, 0.90, 0.95, 0.99]
    assert sensitivity_lower_bound(28) < 0.90 < sensitivity_lower_bound(29)
    assert sensitivity_lower_bound(0) == 0


@pytest.mark.parametrize("n", [5, 29])
def test_a_fresh_positive_is_missed_once_in_n_plus_1_and_the_bound_holds(n: int) -> None:
    rng = np.random.default_rng(n)
    draws = 20_000
    cutoffs = rng.normal(size=(draws, n)).min(axis=1)  # rule-out on n positives, in one stroke
    assert cutoffs[0] == rule_out(cutoffs[:1], np.ones(1)).cutoff
    missed = (rng.normal(size=draws) < cutoffs).mean()
    expected = 1 / (n + 1)
    assert abs(missed - expected) < 4 * np.sqrt(expected / draws)
    fresh = np.sort(rng.normal(size=20_000))
    sensitivity = 1 - np.searchsorted(fresh, cutoffs) / len(fresh)
    assert abs((sensitivity < sensitivity_lower_bound(n)).mean() - 0.05) < 0.01


@given(st.integers(1, 80), st.integers(1, 5), st.integers(0, 2**32), st.booleans())
def test_few_healthy_patients_are_suspected(n: int, targets: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    healthy = rng.beta(1, 5, size=(n, targets))
    if ties:
        healthy = healthy.round(1)
    floor = rng.beta(1, 9, size=targets)
    cutoffs = rule_in(healthy, floor, 0.95)
    assert (healthy >= cutoffs).any(axis=1).mean() <= 0.05
    assert (cutoffs >= floor).all() and (cutoffs <= 1).all()


def test_the_joint_rate_is_used_up_and_holds_for_fresh_patients() -> None:
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(60):
        shared, own = rng.normal(size=(800, 1)), rng.normal(size=(800, 5))
        scores = 0.5 * shared + own  # correlated targets, as in patients
        cutoffs = rule_in(scores[:400], np.full(5, -9.0), 0.95)
        assert 0.02 < (scores[:400] >= cutoffs).any(axis=1).mean() <= 0.05
        rates.append((scores[400:] >= cutoffs).any(axis=1).mean())
    assert 0.035 < np.mean(rates) <= 0.051


def test_a_target_that_is_rarely_assessed_keeps_its_specificity() -> None:
    rng = np.random.default_rng(1)
    healthy = rng.random((1000, 2))
    healthy[10:, 1] = np.nan
    cutoffs = rule_in(healthy, np.zeros(2), 0.95)
    assert cutoffs[1] > np.nanmax(healthy[:, 1])
    healthy[:, 1] = np.nan
    with pytest.raises(ValueError, match="at least one healthy"):
        rule_in(healthy, np.zeros(2), 0.95)


def test_the_worst_series_of_a_patient_counts() -> None:
    patients = np.array(["b", "a", "b", "a", "c"])
    scores = np.array([[0.1, np.nan], [0.3, 0.2], [0.9, np.nan], [np.nan, 0.1], [0.5, 0.5]])
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 1], [0, 0]])
    unique, worst, label = by_patient(patients, scores, labels)
    assert unique.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(worst, [[0.3, 0.2], [0.9, np.nan], [0.5, 0.5]])
    assert label.tolist() == [[0, 1], [1, 0], [0, 0]]


@pytest.mark.parametrize("scores", [[0.1, np.nan], [0.1, np.inf]])
def test_scores_that_are_not_finite_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        rule_out(np.array(scores), np.array([0, 1]))


@pytest.mark.parametrize(("calibration", "other"), [(32, 32), (160, 161), (3, 1), (1, 20), (5, 0)])
def test_the_quantile_of_misses_is_that_of_the_negative_hypergeometric(
    calibration: int, other: int
) -> None:
    total = calibration + other
    k = misses_quantile(calibration, other)
    beyond = comb(total - k - 1, calibration) / comb(total, calibration)  # P(misses > k)
    assert beyond <= 0.05
    if k:
        assert comb(total - k, calibration) / comb(total, calibration) > 0.05


@pytest.fixture(scope="module")
def real_scores(shared: Path) -> ScoreTable:
    """Out-of-fold probabilities of a published model on 3,147 real patients."""
    path = shared / "rsna2023" / "oof" / "mil_efficientnetb0_3d.csv"
    if not path.is_file():
        pytest.skip(f"real scores not found at {path}")
    return read_predictions(path)


@pytest.mark.parametrize("calibrations", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_cutoffs_and_calibration_keep_their_promises_on_real_scores(
    real_scores: ScoreTable, calibrations: int
) -> None:
    found = check_halves(real_scores, repeats=1000, calibrations=calibrations)
    assert found.targets == TARGETS
    assert found.positives.tolist() == [64, 200, 182, 321, 354]
    assert not found.calibration_misses.any() and not found.not_highest.any()
    assert (found.beyond <= found.allowed).all(), found.rows()
    assert ((found.slopes > 0.9) & (found.slopes < 1.1)).all(), found.rows()
    assert ((found.expected > 0.9) & (found.expected < 1.1)).all(), found.rows()
    joint = found.joint_specificity
    assert 0.95 <= joint.mean() < 0.96  # never less on average, and used up


def test_the_bound_rests_on_the_positives_alone(
    real_scores: ScoreTable,
) -> None:
    few = fit_score_cutoffs(real_scores, calibrated_on="real").targets[Target.BOWEL]
    assert few.rule_out is not None and few.rule_out.positives == 64
    assert few.rule_out.sensitivity_lower_bound == pytest.approx(0.05 ** (1 / 64))
