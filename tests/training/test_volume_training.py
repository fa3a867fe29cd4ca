"""The volume net's pieces and losses, and that it finds a planted lesion in whole patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bodies import write_patients

from triage.decision.auc import auc
from triage.nets.localiser import Localiser
from triage.training.cache import Entry
from triage.training.loop import Habits, Plan
from triage.training.loop import train as run
from triage.training.volume import (
    PIECE,
    WHOLE_ORGAN,
    VolumeTask,
    lesion_loss,
    study_logits,
)
from triage.training.volume_cases import FOUND, Case, cut_cube, find_organs, moved
from triage.types import TARGETS, Target

LIVER = TARGETS.index(Target.LIVER)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    return write_patients(tmp_path_factory.mktemp("people"), 8)


def test_every_other_piece_shows_the_lesion(people: list[Entry]) -> None:
    task = VolumeTask(people, width=4)
    assert task.targets == [Target.LIVER]  # the only one with both labels and its organ known
    for i in range(6):
        piece = task.sample(i, np.random.default_rng(i))
        assert piece.hu.shape == (1, 2 * PIECE, 2 * PIECE, PIECE)
        assert piece.regions.shape == (4, PIECE, PIECE, PIECE)
        assert bool(piece.injured[LIVER]) == (i % 2 == 0)
        assert piece.mapped.tolist() == piece.clear.tolist()  # whole lesions: nothing in doubt
        assert float(piece.mapped.sum()) == 1.0  # other organs are not labelled here
        assert 50 < float(piece.levels[0]) < 160
        assert int(piece.lesion[LIVER].sum()) * 0.027 == pytest.approx(3.05 * (i % 2 == 0), abs=0.8)


def test_a_cube_at_the_edge_is_filled_with_air(people: list[Entry]) -> None:
    case = Case(people[1])
    hu, organs, bits = cut_cube(case, np.array([0, 47, 22]), PIECE)
    assert hu.shape == (48, 48, 24) and organs.shape == bits.shape == (24, 24, 24)
    assert bool((hu[:24] == -1000).all()) and float(hu[24:].mean()) > -900
    assert int(organs[:12].sum()) == 0
    whole, _, spots = cut_cube(case, np.array([24, 24, 22]), 48)
    assert bool((spots > 0).any()) and whole.shape == (96, 96, 48)
    assert int((spots > 0).sum()) == int((case.bits > 0).sum())


def test_regions_move_without_wrapping_round() -> None:
    regions = torch.zeros(4, 4, 4, 4)
    regions[:, 0, 1, 2] = 1
    there = moved(regions, np.array([0, 1, -1]))
    assert there.shape == regions.shape and there.nonzero()[:, 1:].unique(dim=0).tolist() == [
        [0, 0, 3]
    ]
    assert float(moved(regions, np.array([1, 0, 0])).sum()) == 0


def test_without_masks_the_patients_label_counts(tmp_path: Path) -> None:
    task = VolumeTask(write_patients(tmp_path, 4, masks_known=False), width=4)
    assert task.side == WHOLE_ORGAN
    piece = task.sample(0, np.random.default_rng(0))
    assert float(piece.injured[LIVER]) == 1.0 and float(piece.clear[LIVER]) == 1.0
    assert float(piece.mapped.sum()) == 0.0
    value, parts = task.loss(task.net, task.collate([piece]))
    assert bool(value.isfinite()) and float(parts["map"]) == 0.0
    healthy = task.sample(1, np.random.default_rng(1))  # without an injury every place is known
    assert float(healthy.injured[LIVER]) == 0.0 and float(healthy.mapped[LIVER]) == 1.0


def test_the_map_loss_is_least_for_the_truth() -> None:
    truth = torch.zeros(1, 5, 8, 8, 8)
    truth[0, LIVER, 2:6, 2:6, 2:6] = 1
    right = [v[0, LIVER].item() for v in lesion_loss(20 * truth - 10, truth)]
    wrong = [v[0, LIVER].item() for v in lesion_loss(10 - 20 * truth, truth)]
    assert max(right) < 0.01 and min(wrong) > 0.5
    assert lesion_loss(torch.zeros(1, 5, 8, 8, 8), truth)[1][0, 0] == 0  # no lesion, no Dice


def test_the_organs_are_those_that_the_localiser_finds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    people = write_patients(tmp_path, 4)
    said: list[str] = []
    find_organs(people, Localiser(4).eval(), said.append)
    true, found = Case(people[0]), Case(people[0], found=True)
    assert found.organs.shape == true.organs.shape and found.organs.dtype == torch.uint8
    assert not torch.equal(found.organs, true.organs)  # nobody trained this localiser
    assert torch.equal(found.bits, true.bits)  # lesions stay where they are
    written = (people[0].folder / FOUND).stat().st_mtime_ns
    find_organs(people, Localiser(4).eval(), said.append)
    assert (people[0].folder / FOUND).stat().st_mtime_ns == written  # not made again


def test_nobody_with_both_labels_is_refused(people: list[Entry]) -> None:
    with pytest.raises(ValueError, match="with and without"):
        VolumeTask(people[::2], width=4)


def test_it_learns_the_planted_lesion(people: list[Entry], tmp_path: Path) -> None:
    held = write_patients(tmp_path / "held", 12)
    task = VolumeTask(people, held, width=4)
    plan = Plan(steps=100, batch=6, seed=1, validate_every=100)
    lines: list[str] = []
    run(task, tmp_path, plan, Habits("cpu", log_every=10), log=lines.append)
    found = np.stack([study_logits(task.net, e, torch.device("cpu")) for e in held])
    labels = np.array([int(e.grade(Target.LIVER) > 0) for e in held])
    assert auc(found[:, LIVER], labels) > 0.9
    assert "validation score" in " ".join(lines)
