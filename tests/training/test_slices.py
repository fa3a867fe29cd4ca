"""Balance, folds and labels of the slice training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from triage.nets.slice_net import JointSliceNet
from triage.training.cache import Entry, entries, save
from triage.training.slices import balanced, folds_of, picture, samples_of, train_member
from triage.types import TARGETS, Organ, Target


@given(
    st.lists(st.integers(0, 1), min_size=2, max_size=300).filter(lambda y: 0 < sum(y) < len(y)),
    st.integers(0, 9),
)
def test_every_epoch_is_balanced_one_to_one(labels: list[int], seed: int) -> None:
    y = np.asarray(labels)
    order = balanced(y, np.random.default_rng(seed))
    assert y[order].sum() * 2 == len(order)
    assert len(set(order.tolist())) == len(order)
    assert len(order) == 2 * min(y.sum(), (1 - y).sum())


def test_balance_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="positives and negatives"):
        balanced(np.zeros(5, dtype=np.int64), np.random.default_rng(0))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(2, 6))
def test_nobody_is_in_two_folds(people: list[int], folds: int) -> None:
    names = [f"p{i}" for i in people]
    fold = folds_of(names, folds, seed=1)
    by_person: dict[str, set[int]] = {}
    for name, k in zip(names, fold, strict=True):
        by_person.setdefault(name, set()).add(int(k))
    assert all(len(ks) == 1 for ks in by_person.values())
    sizes = [sum(1 for ks in by_person.values() if ks == {k}) for k in range(folds)]
    assert max(sizes) - min(sizes) <= 1


@pytest.fixture(scope="module")
def injured(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """One simulated patient with injuries of liver and left kidney, coarse but whole."""
    from triage.simulate.patient import simulate
    from triage.simulate.plan import Case
    from triage.types import Phase

    folder = tmp_path_factory.mktemp("set")
    for seed in range(20):
        patient = simulate(
            (5, seed),
            spacing=(3.0, 3.0, 6.0),
            case=Case(liver=2, kidney=2),
            phase=Phase.PORTAL_VENOUS,
        )[0]
        if patient.grades[Target.LIVER] and patient.grades[Target.KIDNEY]:
            break
    save(patient, folder / "p0", "p0")
    return entries(folder)[0]


def test_slice_labels_follow_the_lesion(injured: Entry) -> None:
    known = samples_of(0, injured)
    area = (np.asarray(injured.labels[1]) & (1 << TARGETS.index(Target.LIVER)) > 0).sum((1, 2))
    liver = [s for s in known if s.target is Target.LIVER]
    assert any(s.label for s in liver)
    for sample in liver:
        near = area[max(sample.slice - 1, 0) : sample.slice + 2]
        assert sample.label == int(near.max() >= 14)
    assert not any(s.label for s in known if s.target is Target.SPLEEN)


def test_pictures_are_in_range_and_repeatable(injured: Entry) -> None:
    sample = next(s for s in samples_of(0, injured) if s.target is Target.KIDNEY)
    one = picture(injured, sample, np.random.default_rng(3))
    two = picture(injured, sample, np.random.default_rng(3))
    assert one.shape == (3, 224, 224)
    assert float(one.abs().max()) <= 1.0 + 1e-6
    assert torch.equal(one, two)
    assert not torch.equal(one, picture(injured, sample, np.random.default_rng(4)))


def test_an_entry_knows_its_patient(injured: Entry) -> None:
    assert injured.person == "p0"
    assert injured.grade(Target.LIVER) == 2
    assert set(injured.known) == set(Organ)
    assert json.loads((Path(injured.folder) / "meta.json").read_text())["side"] in {
        "right",
        "left",
        "both",
    }


def _planted(shuffled: bool) -> float:
    """AUC on new data of a member trained on features with (or without) a planted signal."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    labels = rng.integers(0, 2, 160)
    features = torch.randn(160, 160, 7, 7)
    features[:, 5] += 3.0 * torch.from_numpy(labels).float()[:, None, None]
    if shuffled:
        labels = rng.permutation(labels)
    tail = train_member(
        JointSliceNet(), features[:80], labels[:80], epochs=6, seed=1, target=Target.LIVER, batch=16
    )
    with torch.no_grad():
        scores = tail(features[80:]).numpy()
    positive, negative = scores[labels[80:] == 1], scores[labels[80:] == 0]
    return float((positive[:, None] > negative[None]).mean())


def test_a_planted_signal_is_learnt_and_shuffled_labels_are_not() -> None:
    assert _planted(shuffled=False) > 0.9
    assert 0.25 < _planted(shuffled=True) < 0.75
