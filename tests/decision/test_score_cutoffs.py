"""Cutoffs of a score table, in the scale of its scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.decision.logistic import sigmoid
from triage.decision.score_cutoffs import ScoreCutoffs, fit_score_cutoffs, weights_to_prevalence
from triage.decision.scores import ScoreTable, from_rows
from triage.decision.table import CutoffTable
from triage.types import Target

TWO = (Target.LIVER, Target.SPLEEN)
# Few distinct scores, so that ties are common.
PATIENTS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(-8, 8), st.booleans()), min_size=1, max_size=3),
        st.tuples(st.integers(0, 1), st.integers(0, 1)),
    ),
    min_size=1,
    max_size=40,
).filter(lambda rows: any(1 in labels for _, labels in rows))


def table_of(patients: list, change=lambda x: x) -> ScoreTable:  # type: ignore[no-untyped-def,type-arg]
    return from_rows(
        {
            "patient_id": i,
            "target": target,
            "label": labels[t],
            "score": change(float(score + t * flip)),
        }
        for i, (series, labels) in enumerate(patients)
        for score, flip in series
        for t, target in enumerate(TWO)
    )


def fit(table: ScoreTable) -> ScoreCutoffs:
    return fit_score_cutoffs(table, calibrated_on="simulated", specificity=0.9)


@given(PATIENTS)
@settings(max_examples=60)
def test_rule_out_is_the_highest_cutoff_without_a_miss(patients: list) -> None:  # type: ignore[type-arg]
    table = table_of(patients)
    found = fit(table)
    for t, entry in enumerate(found.targets.values()):
        positive = table.scores[table.labels[:, t] == 1, t]
        assert entry.positives == len(positive)
        if not len(positive):
            assert entry.rule_out is None and "no positives" in entry.notes[0]
            continue
        assert entry.rule_out is not None
        assert (positive >= entry.rule_out.cutoff).all()
        assert (positive == entry.rule_out.cutoff).any()
        if entry.rule_in is not None:
            assert entry.rule_in.cutoff >= entry.rule_out.cutoff


@given(PATIENTS)
@settings(max_examples=60)
def test_few_healthy_patients_have_any_suspected_target(patients: list) -> None:  # type: ignore[type-arg]
    table = table_of(patients)
    found = fit(table)
    if not table.healthy.any():
        assert all(entry.rule_in is None for entry in found.targets.values())
        return
    limits = [entry.rule_in.cutoff for entry in found.targets.values() if entry.rule_in]
    assert (table.scores[table.healthy] >= limits).any(axis=1).mean() <= 0.1 + 1e-12


@given(PATIENTS)
@settings(max_examples=40)
def test_a_monotone_change_of_scale_changes_no_decision(patients: list) -> None:  # type: ignore[type-arg]
    plain, moved = table_of(patients), table_of(patients, lambda x: float(sigmoid(np.array(x / 3))))
    one, other = fit(plain), fit(moved)
    assert (one.scale, other.scale) == (
        "probability" if plain.scores.min() >= 0 and plain.scores.max() <= 1 else "logit",
        "probability",
    )
    for t, target in enumerate(one.targets):
        for name in ("rule_out", "rule_in"):
            a, b = getattr(one.targets[target], name), getattr(other.targets[target], name)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(
                    plain.scores[:, t] >= a.cutoff, moved.scores[:, t] >= b.cutoff
                )


def rows(n: int, seed: int = 0) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    out: list[dict[str, object]] = []
    for i in range(n):
        label = int(rng.random() < 0.4)
        score = float(rng.normal() + 2 * label)
        out.append({"patient_id": i, "target": "liver", "label": label, "score": score})
    return out


def test_calibration_is_at_the_prevalence_asked_for() -> None:
    table = from_rows(rows(4000))
    entry = fit_score_cutoffs(table, calibrated_on="real", prevalence={Target.LIVER: 0.1}).targets[
        Target.LIVER
    ]
    assert entry.prevalence == 0.1 and entry.calibration is not None
    # two unit normals 2 apart: logit = 2 x - 2 + logit(prevalence)
    assert entry.calibration.slope == pytest.approx(2, abs=0.2)
    assert entry.calibration.intercept == pytest.approx(-2 + np.log(0.1 / 0.9), abs=0.25)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.01, 50)), min_size=2, max_size=30),
    st.floats(0.01, 0.99),
)
def test_weights_reach_the_prevalence_and_keep_their_proportions(
    patients: list[tuple[bool, float]], wanted: float
) -> None:
    hurt, own = (np.array(column, dtype=float) for column in zip(*patients, strict=True))
    if not 0 < hurt.sum() < len(hurt):
        with pytest.raises(ValueError, match="Expected both classes"):
            weights_to_prevalence(hurt, wanted, own)
        return
    weights = weights_to_prevalence(hurt, wanted, own)
    assert np.average(hurt, weights=weights) == pytest.approx(wanted)
    assert weights.mean() == pytest.approx(1)
    for y in (0, 1):
        ratio = (weights / own)[hurt == y]
        assert ratio == pytest.approx(ratio[0])
    as_it_is = weights_to_prevalence(hurt, None, own)
    assert as_it_is == pytest.approx(own / own.mean())


def test_no_positive_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one positive"):
        fit(from_rows([{"patient_id": 1, "target": "liver", "label": 0, "score": 0.5}]))


def test_cutoffs_in_the_scale_of_scores_are_no_bundles_cutoffs() -> None:
    written = fit(from_rows(rows(50))).to_dict()
    assert set(written["targets"]["liver"]["rule_out"]) == {
        "cutoff",
        "sensitivity_lower_bound",
        "positives",
    }
    with pytest.raises(ValueError, match="scale"):
        CutoffTable.from_dict(written)
