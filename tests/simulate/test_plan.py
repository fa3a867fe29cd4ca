"""The case plan: prevalence and co-occurrence as in the published labels, and as asked for."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.simulate.fields import Dice
from triage.simulate.plan import (
    GRADES,
    JOINT,
    PHASES,
    Case,
    draw_case,
    draw_phase,
    marginal,
    natural,
    raked,
)
from triage.types import TARGETS, Phase, Target

DRAWS = 3000
WITHIN = 0.02


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Grades (draw, target) at natural prevalence."""
    return np.array([draw_case(Dice((number, 1))).key for number in range(DRAWS)])


@pytest.fixture(scope="module")
def published(shared: Path) -> np.ndarray:
    """Grades (patient, target) of the real label file."""
    table = shared / "rsna2023" / "train.csv"
    if not table.is_file():
        pytest.skip(f"there is no {table}")
    with table.open() as file:
        rows = list(csv.DictReader(file))

    def grade(row: dict[str, str], target: Target) -> int:
        if GRADES[target] == 1:
            return int(row[f"{target}_injury"])
        return int(row[f"{target}_low"]) + 2 * int(row[f"{target}_high"])

    return np.array([[grade(row, t) for t in TARGETS] for row in rows])


def test_draws_agree_with_the_published_labels(drawn: np.ndarray, published: np.ndarray) -> None:
    """Each grade, each pair of targets, and any injury, within 2 percentage points."""
    for i, target in enumerate(TARGETS):
        for grade in range(GRADES[target] + 1):
            share = [(table[:, i] == grade).mean() for table in (drawn, published)]
            assert share[0] == pytest.approx(share[1], abs=WITHIN), (target, grade)
    for i, j in combinations(range(len(TARGETS)), 2):
        share = [((t[:, i] > 0) & (t[:, j] > 0)).mean() for t in (drawn, published)]
        assert share[0] == pytest.approx(share[1], abs=WITHIN), (TARGETS[i], TARGETS[j])
    assert drawn.any(1).mean() == pytest.approx(published.any(1).mean(), abs=WITHIN)


def test_injuries_come_together_as_in_the_published_labels(published: np.ndarray) -> None:
    """Given one injury, another one is as likely as there: 2 points of all are coarse for rare
    pairs. What the table leaves out (combinations seen once) may cost 8 points here."""
    table = natural()
    for i, one in enumerate(TARGETS):
        for j, other in enumerate(TARGETS):
            if i == j:
                continue
            both = sum(p for key, p in table.items() if key[i] and key[j])
            real = (published[published[:, i] > 0][:, j] > 0).mean()
            assert both / marginal(table, one) == pytest.approx(real, abs=0.08), (one, other)


def test_draws_agree_with_the_built_in_table(drawn: np.ndarray) -> None:
    table = natural()
    for i, target in enumerate(TARGETS):
        for grade in range(1, GRADES[target] + 1):
            share = (drawn[:, i] == grade).mean()
            assert share == pytest.approx(marginal(table, target, grade), abs=WITHIN)
    assert drawn.any(1).mean() == pytest.approx(1 - table[0, 0, 0, 0, 0], abs=WITHIN)
    assert all(tuple(row) in JOINT for row in drawn.tolist())


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(TARGETS), st.floats(0, 1), max_size=5))
def test_prevalence_is_what_was_asked_for(wanted: dict[Target, float]) -> None:
    table = raked(wanted)
    assert sum(table.values()) == pytest.approx(1)
    for target in TARGETS:
        expected = wanted.get(target, marginal(natural(), target))
        assert marginal(table, target) == pytest.approx(expected, abs=1e-3)


def test_prevalence_keeps_how_injuries_come_together() -> None:
    """Odds ratio of extravasation and spleen stays the natural one when liver is made common."""

    def odds_ratio(table: dict[tuple[int, ...], float]) -> float:
        cell = {(a, b): 0.0 for a in (False, True) for b in (False, True)}
        for key, p in table.items():
            if not (key[0] or key[2] or key[3]):
                cell[key[1] > 0, key[4] > 0] += p
        return cell[True, True] * cell[False, False] / (cell[True, False] * cell[False, True])

    assert odds_ratio(raked({Target.LIVER: 0.5})) == pytest.approx(odds_ratio(natural()), rel=0.05)


def test_draws_follow_the_prevalence_asked_for() -> None:
    cases = [draw_case(Dice((n, 2)), prevalence={Target.BOWEL: 0.4}) for n in range(1000)]
    assert np.mean([c.bowel for c in cases]) == pytest.approx(0.4, abs=0.05)
    assert np.mean([c.liver > 0 for c in cases]) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    "wrong", [{"prevalence": {Target.LIVER: 1.1}}, {"enriched": -0.1}, {"enriched": 2.0}]
)
def test_rates_outside_zero_to_one_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        draw_case(Dice(1), **wrong)


def test_enriched_and_prevalence_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="got both"):
        draw_case(Dice(1), enriched=0.5, prevalence={Target.LIVER: 0.5})


def test_phases_are_those_of_the_challenge(shared: Path) -> None:
    table = shared / "rsna2023" / "train_series_meta.csv"
    if not table.is_file():
        pytest.skip(f"there is no {table}")
    with table.open() as file:
        aorta = np.array([float(row["aortic_hu"]) for row in csv.DictReader(file)])
    phases = [draw_phase(Dice((n, 3))) for n in range(DRAWS)]
    assert Phase.PLAIN not in PHASES
    for phase, low, high in (
        (Phase.DELAYED, 0, 125),
        (Phase.PORTAL_VENOUS, 125, 225),
        (Phase.ARTERIAL, 225, np.inf),
    ):
        real = ((aorta >= low) & (aorta < high)).mean()
        assert np.mean([p is phase for p in phases]) == pytest.approx(real, abs=0.05), phase


def test_case_knows_its_grades() -> None:
    case = Case(kidney=2)
    assert case.grade(Target.KIDNEY) == 2 and case.any_injury and not Case().any_injury
    assert case.key == (0, 0, 2, 0, 0)
