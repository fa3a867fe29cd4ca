"""The measures themselves, against closed forms, brute force and worked examples."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest, rankdata

from triage.cli.cutoffs import parsed_prevalence
from triage.decision.auc import auc, auc_interval, difference, midranks, newcombe
from triage.decision.logistic import sigmoid
from triage.training.evaluation import probabilities
from triage.training.evaluation.prevalence import high_share, natural
from triage.training.evaluation.rates import at_cutoff, clopper_pearson, weighted_accuracy
from triage.training.evaluation.rsna_metric import ANY_WEIGHTS, WEIGHTS, rsna_metric
from triage.types import TARGETS, Target

LABELLED = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 1)), min_size=2, max_size=30)


@given(LABELLED)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, int]]) -> None:
    scores, labels = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    pairs = [(p > q) + 0.5 * (p == q) for p in scores[labels == 1] for q in scores[labels == 0]]
    assert auc(scores, labels) == pytest.approx(np.mean(pairs) if pairs else math.nan, nan_ok=True)
    found = auc_interval(scores, labels)
    if pairs:
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 0.01  # so few patients never give certainty
    np.testing.assert_array_equal(midranks(scores), rankdata(scores))


def test_delong_agrees_with_brute_force_and_bootstrap() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([1] * 40 + [0] * 90)
    scores = rng.normal(size=130) + labels
    kernel = (scores[:40, None] > scores[None, 40:]).astype(float)
    variance = kernel.mean(1).var(ddof=1) / 40 + kernel.mean(0).var(ddof=1) / 90
    found = auc_interval(scores, labels)
    a = found.value
    half = 1.959964 * math.sqrt(variance) / (a * (1 - a))
    assert found.low == pytest.approx(float(sigmoid(np.log(a / (1 - a)) - half)), abs=1e-6)
    picks = [rng.integers(0, 130, 130) for _ in range(2000)]
    low, high = np.quantile([auc(scores[k], labels[k]) for k in picks], [0.025, 0.975])
    assert abs(found.low - low) < 0.02 and abs(found.high - high) < 0.02


def test_the_interval_covers_the_truth_even_where_samples_separate() -> None:
    rng = np.random.default_rng(1)
    shift = 2.0
    truth = float(0.5 * (1 + math.erf(shift / 2)))  # AUC of two unit normals
    inside, draws = 0, 600
    for _ in range(draws):
        labels = np.array([1] * 8 + [0] * 12)
        found = auc_interval(rng.normal(size=20) + shift * labels, labels)
        inside += found.low <= truth <= found.high
    assert inside / draws > 0.92
    perfect = newcombe(1.0, 8, 12, 1.96)
    assert perfect.high == 1.0 and 0.6 < perfect.low < 0.9


def test_doubling_every_patient_adds_no_certainty() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 80)
    scores = rng.normal(size=80) + labels
    persons = [str(i) for i in range(80)]
    once = auc_interval(scores, labels)
    twice = auc_interval(np.tile(scores, 2), np.tile(labels, 2), persons * 2)
    assert twice.low == pytest.approx(once.low, abs=2e-3)
    assert auc_interval(np.tile(scores, 2), np.tile(labels, 2)).low > once.low + 0.01


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 1), st.integers(1, 4)), min_size=2))
def test_a_weight_is_that_many_patients(rows: list[tuple[int, int, int]]) -> None:
    scores, labels, times = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    repeated = np.repeat(np.arange(len(rows)), times.astype(int))
    found = auc_interval(scores, labels, weights=times)
    value = auc(scores[repeated], labels[repeated])
    assert found.value == pytest.approx(value, nan_ok=True)
    some = auc_interval(scores, labels, weights=np.full(len(rows), 0.3))
    plain = auc_interval(scores, labels)
    for one, other in ((some.value, plain.value), (some.low, plain.low), (some.high, plain.high)):
        assert one == pytest.approx(other, nan_ok=True)  # equal weights are none


def test_the_weighted_interval_covers_the_population() -> None:
    """Patients drawn by strata of different difficulty: the population's AUC, not the sample's."""
    rng = np.random.default_rng(2)

    def drawn(n: int, hard: float) -> tuple[np.ndarray, ...]:  # type: ignore[type-arg]
        labels, easy = np.arange(n) % 2, rng.random(n) > hard
        scores = rng.normal(size=n) + labels * np.where(easy, 2.5, 0.3)
        return scores, labels, np.where(easy, 0.9 / (1 - hard), 0.1 / hard)

    truth, inside, plain, rounds = auc(*drawn(200_000, 0.1)[:2]), 0, 0, 300
    for _ in range(rounds):
        scores, labels, weights = drawn(160, 0.5)
        found, without = auc_interval(scores, labels, weights=weights), auc_interval(scores, labels)
        inside += found.low <= truth <= found.high
        plain += without.low <= truth <= without.high
    assert inside >= 0.9 * rounds and plain < 0.5 * rounds


def test_a_difference_of_paired_aucs_knows_that_they_are_paired() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 400)
    a = rng.normal(size=400) + labels
    same = difference(a, a * 3 + 1, labels)
    assert same.value == same.low == same.high == 0
    better = difference(a, a + rng.normal(0, 2, 400), labels)
    assert better.low > 0 and better.high - better.low < 0.2


@given(st.integers(0, 400), st.integers(0, 400))
def test_clopper_pearson_is_scipys(a: int, b: int) -> None:
    n, k = max(a, b), min(a, b)
    found = clopper_pearson(k, n)
    if n == 0:
        assert math.isnan(found.value)
        return
    other = binomtest(k, n).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-9)
    if k > 0:
        assert found.low == pytest.approx(beta.ppf(0.025, k, n - k + 1))


def test_rates_at_a_cutoff_count_ties_as_flagged() -> None:
    scores, labels = np.array([0.1, 0.5, 0.5, 0.9]), np.array([0, 0, 1, 1])
    found = at_cutoff(scores, labels, 0.5)
    assert found["sensitivity"]["value"] == 1 and found["specificity"]["value"] == 0.5
    assert found["accuracy"]["value"] == 0.75 and found["missed"] == 0 and found["flagged"] == 3
    weighed = weighted_accuracy(2, 2, 1, 2, 0.1)
    assert weighed.value == pytest.approx(0.1 * 1 + 0.9 * 0.5)
    assert weighed.low < weighed.value < weighed.high


def test_calibration_slope_is_recovered_and_is_unknown_where_classes_separate() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(-1, 1.5, 20_000)
    labels = (rng.random(20_000) < sigmoid(truth)).astype(float)
    ones = np.ones(len(labels))
    over = probabilities.calibration(sigmoid(2 * truth + 1), labels, ones)
    assert over["slope"]["value"] == pytest.approx(0.5, abs=0.02)
    assert over["slope"]["low"] < 0.5 < over["slope"]["high"]
    assert over["intercept"]["value"] == pytest.approx(-0.5, abs=0.05)
    right = probabilities.calibration(sigmoid(truth), labels, ones)
    assert right["observed_over_expected"] == pytest.approx(1, abs=0.03)
    apart = probabilities.calibration(np.array([0.1, 0.2, 0.8]), np.array([0.0, 0, 1]), np.ones(3))
    assert math.isnan(apart["slope"]["value"])


def test_weights_undo_a_sample_enriched_with_injuries() -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(-2, 1.5, 60_000)
    labels = (rng.random(60_000) < sigmoid(truth)).astype(float)
    keep = (labels == 1) | (rng.random(60_000) < 0.1)
    share, p, y = labels.mean(), sigmoid(truth[keep]), labels[keep]
    weights = np.where(y == 1, share / y.mean(), (1 - share) / (1 - y.mean()))
    found = probabilities.calibration(p, y, weights)
    assert found["slope"]["value"] == pytest.approx(1, abs=0.05)
    assert found["observed_over_expected"] == pytest.approx(1, abs=0.05)
    whole = probabilities.brier(sigmoid(truth), labels, np.ones(60_000))
    assert probabilities.brier(p, y, weights) == pytest.approx(whole, rel=0.03)
    for group in probabilities.reliability(p, y, weights):
        assert (
            group["observed"]["low"] - 0.02
            <= group["predicted"]
            <= group["observed"]["high"] + 0.02
        )


def test_a_groups_share_is_that_of_its_weights() -> None:
    rng = np.random.default_rng(3)
    p, labels, weights = (
        rng.random(200),
        (rng.random(200) < 0.3).astype(float),
        rng.random(200) + 0.1,
    )
    groups = probabilities.reliability(p, labels, weights, bins=4)
    for group, rows in zip(groups, np.array_split(np.argsort(p, kind="stable"), 4), strict=True):
        share = float(np.average(labels[rows], weights=weights[rows]))
        assert group["observed"]["value"] == pytest.approx(share)
        assert group["observed"]["low"] < share < group["observed"]["high"]


def test_net_benefit_of_a_worked_example() -> None:
    p, y = np.array([0.05, 0.3, 0.6, 0.9]), np.array([0.0, 0, 1, 1])
    curve = probabilities.decision_curve(p, y, np.ones(4))
    at = curve["thresholds"].index(0.2)
    assert curve["model"][at] == pytest.approx(2 / 4 - 1 / 4 * 0.25)
    assert curve["all"][at] == pytest.approx(2 / 4 - 2 / 4 * 0.25)


def test_the_challenges_metric_of_a_worked_example() -> None:
    two = {t: np.array([[0.8, 0.2], [0.4, 0.6]]) for t in (Target.BOWEL, Target.EXTRAVASATION)}
    three = {
        t: np.array([[0.5, 0.25, 0.25], [1.4, 0.4, 0.2]])  # the second is scaled to 0.7, 0.2, 0.1
        for t in (Target.KIDNEY, Target.LIVER, Target.SPLEEN)
    }
    classes = {t: np.array([0, 1]) for t in TARGETS}
    classes[Target.SPLEEN] = np.array([0, 2])
    found = rsna_metric(classes, two | three)
    log = math.log
    assert found["bowel"] == pytest.approx(-(log(0.8) + 2 * log(0.6)) / 3)
    assert found["extravasation"] == pytest.approx(-(log(0.8) + 6 * log(0.6)) / 7)
    assert found["liver"] == pytest.approx(-(log(0.5) + 2 * log(0.2)) / 3)
    assert found["spleen"] == pytest.approx(-(log(0.5) + 4 * log(0.1)) / 5)
    # any injury: 1 - healthy is at most 0.5 for the first patient, 0.6 for the second
    assert found["any_injury"] == pytest.approx(-(log(0.5) + 6 * log(0.6)) / 7)
    losses = [v for k, v in found.items() if k != "score"]
    assert len(losses) == 6 and found["score"] == pytest.approx(np.mean(losses))
    certain = {t: np.eye(len(WEIGHTS[t]))[classes[t]] for t in TARGETS}
    assert rsna_metric(classes, certain)["score"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="all five"):
        rsna_metric(classes, two)


def test_weights_and_any_injury_are_those_of_the_challenge(shared: Path) -> None:
    path = shared / "rsna2023" / "oof" / "mil_efficientnetb0_3d.csv"
    if not path.is_file():
        pytest.skip(f"real scores not found at {path}")
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            numbers = {k: float(v) for k, v in row.items()}
            healthy = []
            for target in TARGETS:
                if len(WEIGHTS[target]) == 2:
                    klass = int(numbers[f"{target}_injury"])
                    healthy.append(1 - numbers[f"{target}_injury_prediction"])
                else:
                    klass = int(numbers[f"{target}_low"] + 2 * numbers[f"{target}_high"])
                    healthy.append(numbers[f"{target}_healthy_prediction"])
                weight = numbers.get(f"{target}_weight", numbers.get(f"{target}_injury_weight"))
                assert weight == WEIGHTS[target][klass]
            assert numbers["any_injury_weight"] == ANY_WEIGHTS[int(numbers["any_injury"])]
            assert numbers["any_injury_prediction"] == pytest.approx(1 - min(healthy), abs=1e-6)


@settings(max_examples=20)
@given(st.floats(0.01, 0.99))
def test_prevalences_are_read_as_they_are_written(share: float) -> None:
    assert parsed_prevalence("as-is") is None and parsed_prevalence("natural") == natural()
    read = parsed_prevalence(f"liver={share}, spleen=0.1")
    assert read == {Target.LIVER: share, Target.SPLEEN: 0.1}
    for wrong in ("liver", "lung=0.1", "liver=1", "liver=x", "liver=0.1,liver=0.2"):
        with pytest.raises(ValueError, match="Expected"):
            parsed_prevalence(wrong)


def test_natural_prevalence_is_that_of_the_published_labels() -> None:
    assert natural()[Target.BOWEL] == pytest.approx(0.02, abs=0.005)
    assert natural()[Target.SPLEEN] == pytest.approx(0.11, abs=0.01)
    assert high_share()[Target.BOWEL] == 0 and 0.3 < high_share()[Target.SPLEEN] < 0.55
