"""Cutoffs: no false negative, the certificate, and the joint rate of healthy patients."""

from __future__ import annotations

import csv
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.decision.calibration import fit_calibration
from triage.decision.cutoffs import (
    by_patient,
    fit_cutoffs,
    rule_in,
    rule_out,
    sensitivity_lower_bound,
)
from triage.decision.logistic import logit
from triage.types import TARGETS

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


def real_scores(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold probabilities of a published model: (patients, 5), labels (patients, 5)."""
    path = shared / "rsna2023" / "oof" / "mil_efficientnetb0_3d.csv"
    if not path.is_file():
        pytest.skip(f"real scores not found at {path}")
    with path.open() as stream:
        rows = list(csv.DictReader(stream))

    def column(target: str) -> tuple[list[float], list[int]]:
        if target in ("bowel", "extravasation"):
            return (
                [float(r[f"{target}_injury_prediction"]) for r in rows],
                [int(float(r[f"{target}_injury"])) for r in rows],
            )
        return (
            [1 - float(r[f"{target}_healthy_prediction"]) for r in rows],
            [1 - int(float(r[f"{target}_healthy"])) for r in rows],
        )

    columns = [column(target) for target in TARGETS]
    scores, labels = (np.array(c).T for c in zip(*columns, strict=True))
    _, scores, labels = by_patient(np.array([r["patient_id"] for r in rows]), scores, labels)
    return scores, labels


def quantile_of_misses(calibration: int, other: int) -> int:
    """95 % quantile of the other half's positives below the lowest calibration positive.

    Under exchangeability the k lowest of all positives lie in the other half with probability
    C(N - k, m) / C(N, m) (negative hypergeometric).
    """
    total = calibration + other
    every = comb(total, calibration)
    k = 0
    while comb(total - k - 1, calibration) / every > 0.05:  # P(misses >= k + 1)
        k += 1
    return k


def test_certificates_hold_on_real_scores(shared: Path) -> None:
    scores, labels = real_scores(shared)
    rng = np.random.default_rng(0)
    repeats = 1000
    too_many = np.zeros(len(TARGETS))
    joint = []
    for repeat in range(repeats):
        half = rng.permutation(len(scores)) < len(scores) // 2
        fitted = fit_cutoffs(scores[half], labels[half])
        out = np.array([cutoff.cutoff for cutoff in fitted.rule_out])
        positive = labels == 1
        missed = positive & (scores < out)
        assert not missed[half].any()
        assert (positive & (scores == out))[half].any(axis=0).all()  # the highest such
        n_calibration, n_other = positive[half].sum(axis=0), positive[~half].sum(axis=0)
        for t in range(len(TARGETS)):
            allowed = quantile_of_misses(int(n_calibration[t]), int(n_other[t]))
            too_many[t] += missed[~half, t].sum() > allowed
        healthy = (labels == 0).all(axis=1)
        cut_in = np.array([cutoff.cutoff for cutoff in fitted.rule_in])
        assert fitted.joint_specificity >= 0.95 and (cut_in >= out).all()
        joint.append((scores[~half & healthy] >= cut_in).any(axis=1).mean())
        if repeat == 0:
            specificity = [cutoff.specificity or 0.0 for cutoff in fitted.rule_in]
            assert min(specificity) > 0.9
    # 0.05 + 3 standard errors of 1,000 draws
    assert (too_many / repeats <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)).all(), too_many
    assert 0.04 < np.mean(joint) <= 0.05  # never more on average, and used up


def test_calibration_carries_over_to_other_real_patients(shared: Path) -> None:
    scores, labels = real_scores(shared)
    logits = logit(scores.clip(1e-6, 1 - 1e-6))
    rng = np.random.default_rng(0)
    for t in range(len(TARGETS)):
        slopes, ratios = [], []
        for _ in range(40):
            half = rng.permutation(len(scores)) < len(scores) // 2
            calibration = fit_calibration(logits[half, t], labels[half, t])
            probability = calibration.apply(logits[~half, t])
            slopes.append(fit_calibration(logit(probability), labels[~half, t]).slope)
            ratios.append(probability.mean() / labels[~half, t].mean())
        assert 0.9 < np.mean(slopes) < 1.1, (TARGETS[t], np.mean(slopes))
        assert 0.9 < np.mean(ratios) < 1.1, (TARGETS[t], np.mean(ratios))
