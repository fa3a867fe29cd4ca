"""Nobody is on two sides of a split, and every fold can be trained and judged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.training.folds import CALIBRATION, SplitError, deal, digest, make_split
from triage.training.layout import Patient
from triage.types import TARGETS, Target

LIVER = (Target.LIVER,)


def patient(
    name: str, hurt: bool, *, person: str | None = None, fold: str | None = None
) -> Patient:
    grades = dict.fromkeys(TARGETS, 0) | {Target.LIVER: int(hurt)}
    return Patient(name, grades, hurt, person or name, False, fold, ())


def people(positives: int, negatives: int) -> list[Patient]:
    return [patient(f"p{i}", i < positives) for i in range(positives + negatives)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 25), st.booleans()), min_size=12, max_size=90),
    st.integers(2, 4),
    st.integers(0, 5),
)
def test_nobody_is_on_two_sides(drawn: list[tuple[int, bool]], folds: int, seed: int) -> None:
    some = [patient(f"p{i}", hurt, person=f"person {who}") for i, (who, hurt) in enumerate(drawn)]
    try:
        split = make_split(some, LIVER, folds=folds, calibration=0.25, seed=seed)
    except SplitError:
        return  # too few of a class for so many folds
    assert set(split.where) == {p.person for p in some}
    for k in range(folds):
        inside = {p.person for p in some if split.trains(p.person, k)}
        held = {p.person for p in some if split.holds_out(p.person, k)}
        calibrating = {p.person for p in some if split.calibrates(p.person)}
        assert not inside & held
        assert not inside & calibrating
        assert not held & calibrating
        assert inside | held | calibrating == {p.person for p in some}


@given(st.integers(10, 60), st.integers(10, 200), st.integers(2, 8))
def test_folds_are_stratified(positives: int, negatives: int, folds: int) -> None:
    labels = np.zeros((positives + negatives, 1))
    labels[:positives] = 1
    bins = deal(labels, [1 / folds] * folds)
    share = np.array([[(bins[labels[:, 0] == y] == k).sum() for k in range(folds)] for y in (0, 1)])
    assert (share.max(1) - share.min(1)).max() <= 2


def test_calibration_does_not_depend_on_the_seed() -> None:
    some = people(20, 60)
    one, two = (make_split(some, LIVER, folds=4, calibration=0.25, seed=s) for s in (0, 7))
    chosen = [{p for p, w in s.where.items() if w == CALIBRATION} for s in (one, two)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 20
    assert sum(p.grades[Target.LIVER] for p in some if p.person in chosen[0]) == 5
    assert one.where != two.where
    assert one.sha256 != two.sha256


def test_who_trained_before_never_calibrates() -> None:
    some = people(20, 60)
    trained = {digest(p.person) for p in some[::2]}
    split = make_split(some, LIVER, folds=4, calibration=0.25, seed=0, trained=trained)
    assert not [p for p in some[::2] if split.calibrates(p.person)]
    assert sum(split.calibrates(p.person) for p in some) == 20


def test_added_patients_only_train() -> None:
    added = [patient("simulated 1", True)]
    split = make_split(people(9, 9), LIVER, folds=3, calibration=0.2, seed=0, added=added)
    assert all(split.trains("simulated 1", k) for k in range(3))
    assert not split.calibrates("simulated 1")
    with pytest.raises(SplitError, match="share a person"):
        make_split(people(9, 9), LIVER, folds=3, calibration=0.2, seed=0, added=[patient("p1", 1)])


def test_given_folds_are_kept() -> None:
    some = [patient(f"p{i}", i % 2 == 0, fold=str(i // 4 % 2)) for i in range(12)]
    some += [patient(f"c{i}", i % 2 == 0, fold=CALIBRATION) for i in range(4)]
    split = make_split(some, LIVER, folds=5, calibration=0.25, seed=0)
    assert split.folds == 2
    assert all(str(split.where[p.person]) == p.fold for p in some)


def test_too_few_positives_are_said() -> None:
    with pytest.raises(SplitError, match=r"liver: fold \d of 5 has no positive patient \(3 of"):
        make_split(people(3, 40), LIVER, folds=5, calibration=0.25, seed=0)
