"""Patients drawn by strata, and that their weights bring the natural population back."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage.simulate.fields import Dice
from triage.simulate.plan import Case, draw_case, marginal, natural
from triage.simulate.protocol import load
from triage.simulate.strata import UNINJURED, Mix, stratum_of, within
from triage.types import TARGETS, Target

STRATA = (UNINJURED, *(t.value for t in TARGETS), "kidney_low", "spleen_high")


@given(st.dictionaries(st.sampled_from(STRATA), st.floats(0.01, 100), min_size=1))
def test_weights_bring_back_what_the_strata_hold(shares: dict[str, float]) -> None:
    mix = Mix(shares)
    drawn = {key: p for key, p in mix.design.items() if p}
    assert sum(drawn.values()) == pytest.approx(1)
    held = {key for name in shares for key in within(name, natural())}
    assert set(drawn) == held
    back = {key: p * mix.weight(Case(*key)) for key, p in drawn.items()}
    assert back == pytest.approx({key: natural()[key] for key in held})


def test_draws_follow_the_shares_and_bring_natural_company() -> None:
    mix = Mix({"bowel": 1, "liver": 1})
    cases = [mix(Dice((1, i))) for i in range(2000)]
    assert all(c.bowel or c.liver for c in cases)
    assert sum(c.bowel > 0 for c in cases) / 2000 == pytest.approx(
        marginal(mix.design, Target.BOWEL), abs=0.04
    )
    injuries = Counter(sum(g > 0 for g in c.key) for c in cases)
    company = {
        i: within(t.value, natural()) for i, t in enumerate(TARGETS) if t.value in mix.shares
    }
    alone = sum(
        0.5 * sum(p for k, p in own.items() if sum(g > 0 for g in k) == 1) / sum(own.values())
        for own in company.values()
    )
    assert injuries[1] / 2000 == pytest.approx(alone, abs=0.04)
    enriched = [draw_case(Dice((2, i)), enriched=0.6) for i in range(2000)]
    together = [sum(g > 0 for g in c.key) for c in enriched if c.any_injury]
    assert (
        sum(together) / len(together) > 2.5
    )  # which is why those who calibrate are drawn by strata


def test_the_protocol_is_such_a_mix() -> None:
    protocol = load()
    assert protocol.design == Mix(protocol.strata).design
    plan = protocol.judged(5)
    assert plan.weight == Mix(protocol.strata).weight(plan.case)


def test_an_unknown_stratum_is_refused() -> None:
    with pytest.raises(ValueError, match="expected uninjured, or a target"):
        stratum_of("kidney_severe")
    with pytest.raises(ValueError, match="Unknown stratum 'lung'"):
        _ = Mix({"lung": 1.0}).design
