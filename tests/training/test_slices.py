"""Slices to train on: their labels, and their pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from triage.training.cache import Entry, entries, save
from triage.training.slices import (
    LEAST_VISIBLE,
    WHOLE_BODY,
    Sample,
    picture,
    samples_of,
    whole_body,
)
from triage.types import ORGAN_LABEL, TARGETS, Organ, Phase, Target


@pytest.fixture(scope="module")
def injured(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """One simulated patient with injuries of liver and left kidney, coarse but whole."""
    from triage.simulate.patient import simulate
    from triage.simulate.plan import Case

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


def weak(entry: Entry, **more: object) -> Entry:
    """The same patient, of whom only the label is known."""
    return Entry(entry.folder, {**entry.meta, "masks_known": False, **more})


def liver(entry: Entry) -> list[Sample]:
    return samples_of(0, entry, [Target.LIVER])


def test_slice_labels_follow_the_lesion(injured: Entry) -> None:
    known = samples_of(0, injured)
    area = (np.asarray(injured.labels[1]) & (1 << TARGETS.index(Target.LIVER)) > 0).sum((1, 2))
    own = [s for s in known if s.target is Target.LIVER]
    assert any(s.label for s in own)
    for sample in own:
        near = area[max(sample.slice - 1, 0) : sample.slice + 2]
        assert sample.label == int(near.max() >= 14)
        assert sample.visible == 1.0
    assert not any(s.label for s in known if s.target is Target.SPLEEN)


def test_without_masks_it_is_patient_label_times_visibility(injured: Entry) -> None:
    area = (np.asarray(injured.labels[0]) == ORGAN_LABEL[Organ.LIVER]).sum((1, 2))
    own = liver(weak(injured))
    assert own
    for sample in own:
        assert sample.label == 1
        assert sample.truth == pytest.approx(area[sample.slice] / area.max(), abs=1e-5)
        assert sample.truth >= LEAST_VISIBLE
    assert {s.truth for s in samples_of(0, weak(injured), [Target.SPLEEN])} == {0.0}


def test_named_instances_are_positive_and_those_far_from_them_negative(injured: Entry) -> None:
    middle = sorted(s.slice for s in liver(injured))[len(liver(injured)) // 2]
    own = liver(weak(injured, shows={"liver": [middle]}))
    assert {s.slice for s in own if s.label} <= {middle - 1, middle, middle + 1}
    assert any(s.label for s in own)
    assert all(abs(s.slice - middle) > 3 for s in own if not s.label)


def test_what_is_not_labelled_trains_nothing(injured: Entry) -> None:
    some = weak(injured, grades={"liver": 1})
    assert {s.target for s in samples_of(0, some)} == {Target.LIVER}
    plain = weak(injured, phase="plain")
    assert Target.EXTRAVASATION not in {s.target for s in samples_of(0, plain)}


def test_pictures_are_in_range_and_repeatable(injured: Entry) -> None:
    sample = next(s for s in samples_of(0, injured) if s.target is Target.KIDNEY)
    one = picture(injured, sample, np.random.default_rng(3))
    two = picture(injured, sample, np.random.default_rng(3))
    assert one.shape == (3, 224, 224)
    assert float(one.abs().max()) <= 1.0 + 1e-6
    assert torch.equal(one, two)
    assert not torch.equal(one, picture(injured, sample, np.random.default_rng(4)))
    assert picture(injured, sample, None, 320).shape == (3, 320, 320)


def test_the_body_fills_the_square_around_it(injured: Entry) -> None:
    """Volumes are shown as single images are, too: one network then serves both."""
    view, centre = whole_body(injured, Target.LIVER)
    middle = injured.hu.shape[0] // 2
    sample = Sample(0, Target.LIVER, WHOLE_BODY, middle, centre, 0)
    x = picture(injured, sample, None)[1] > -0.9
    columns, rows = x.any(0).nonzero().flatten(), x.any(1).nonzero().flatten()
    widest = max(int(columns[-1] - columns[0]), int(rows[-1] - rows[0]))
    assert widest > 150
    assert view.organs == ()


def test_an_entry_knows_its_patient(injured: Entry) -> None:
    assert injured.person == "p0"
    assert injured.grade(Target.LIVER) == 2
    assert set(injured.known) == set(Organ)
    assert json.loads((Path(injured.folder) / "meta.json").read_text())["side"] in {
        "right",
        "left",
        "both",
    }
