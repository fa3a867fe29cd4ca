"""A shift is found, chance is not, and many figures raise no more false alarms than one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.decision.drift import ALPHA, LITTLE, MUCH, Shift, drifted, numbers, shares

counts = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 300), min_size=1).filter(
    lambda c: sum(c.values()) > 0
)


def test_a_scanner_with_twice_the_noise_is_found_in_30_studies() -> None:
    rng = np.random.default_rng(3)
    then = rng.normal(12, 2, 200).tolist()
    same, louder = rng.normal(12, 2, 30).tolist(), rng.normal(24, 4, 30).tolist()
    found = {"same": numbers(then, 200, same), "louder": numbers(then, 200, louder)}
    assert drifted(found) == {"louder"} and found["louder"].psi > MUCH
    assert found["same"].over and not found["louder"].over


def test_quantiles_do_as_well_as_the_values_themselves() -> None:
    rng = np.random.default_rng(4)
    then, now = rng.normal(50, 9, 400), rng.normal(58, 9, 80)
    whole = numbers(then.tolist(), 400, now.tolist())
    short = numbers(np.quantile(then, np.linspace(0, 1, 101)).tolist(), 400, now.tolist())
    assert abs(whole.psi - short.psi) < 0.2 * whole.psi
    assert drifted({"x": whole}) == drifted({"x": short}) == {"x"}


def test_spacings_that_only_take_two_values_are_compared() -> None:
    then = [5.0] * 150 + [1.25] * 50
    assert numbers(then, 200, [5.0] * 30 + [1.25] * 10).psi < LITTLE
    assert drifted({"slice_mm": numbers(then, 200, [1.25] * 40)}) == {"slice_mm"}
    assert numbers([5.0] * 200, 200, [5.0] * 30) == Shift(0.0, 1.0, 1)


def test_a_value_beyond_all_that_was_seen_counts() -> None:
    assert drifted({"x": numbers([5.0] * 200, 200, [1.0] * 30)}) == {"x"}
    assert drifted({"x": numbers([5.0] * 200, 200, [9.0] * 30)}) == {"x"}
    two = [5.0] * 100 + [1.25] * 100
    assert drifted({"x": numbers(two, 200, [1.25] * 15 + [3.0] * 15 + [5.0] * 15)}) == {"x"}


def test_many_refused_studies_are_found_though_refusals_were_rare() -> None:
    then = {"analysed": 195, "GAP": 3, "NO_GEOMETRY": 2}
    now = {"analysed": 20, "GAP": 10}
    assert drifted({"outcome": shares(then, now)}) == {"outcome"}
    assert not drifted({"outcome": shares(then, {"analysed": 29, "GAP": 1})})
    assert drifted({"outcome": shares({"analysed": 200}, {"TILT": 30})}) == {"outcome"}


def test_far_but_few_or_many_but_near_is_no_warning() -> None:
    assert not drifted({"x": Shift(psi=0.9, p=0.01, bins=4)})
    assert not drifted({"x": Shift(psi=0.2, p=1e-12, bins=10)})


def test_holm_stops_at_the_first_figure_that_may_be_chance() -> None:
    far = {f"{k}": Shift(1.0, p, 5) for k, p in enumerate([1e-9, ALPHA / 3, 0.5, 1e-9])}
    assert drifted(far) == {"0", "1", "3"}
    assert drifted(far | {"4": Shift(1.0, 0.6, 5)}) == {"0", "3", "1"}
    assert drifted({**far, "1": Shift(1.0, ALPHA * 0.9, 5)}) == {"0", "3"}


@settings(deadline=None)
@given(counts, counts)
def test_shares_stay_in_their_ranges(then: dict[str, int], now: dict[str, int]) -> None:
    shift = shares(then, now)
    assert shift.psi >= 0 and 0 <= shift.p <= 1
    same = shares(then, then)
    assert same.psi < 1e-9 and same.p > 0.99


@settings(deadline=None)
@given(
    st.lists(st.floats(-3000, 3000), min_size=1, max_size=80),
    st.lists(st.floats(-3000, 3000), min_size=1, max_size=80),
)
def test_numbers_stay_in_their_ranges(then: list[float], now: list[float]) -> None:
    shift = numbers(then, len(then), now)
    assert shift.psi >= 0 and 0 <= shift.p <= 1
    assert numbers(then, len(then), then).p == pytest.approx(1)
