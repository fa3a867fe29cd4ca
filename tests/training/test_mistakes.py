"""Mistakes of a volume net are found where they are, and trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bodies import write_patients

from triage.nets.volume_net import VolumeNet
from triage.training import mistakes
from triage.training.cache import Entry
from triage.training.volume import HARD, VolumeTask
from triage.training.volume_cases import Case
from triage.types import TARGETS, Target


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    return write_patients(tmp_path_factory.mktemp("people"), 4)


def test_the_strongest_places_lie_apart() -> None:
    field = torch.zeros(40, 30, 20)
    field[30, 20, 10], field[31, 21, 9], field[5, 6, 7] = 3.0, 2.9, 2.0
    found = mistakes.strongest(field).tolist()
    assert found[:2] == [[30, 20, 10], [5, 6, 7]]
    for i, a in enumerate(found):
        assert all(np.abs(np.subtract(a, b)).max() > mistakes.APART for b in found[:i])


def test_mistakes_lie_near_the_organ_and_away_from_the_lesion(people: list[Entry]) -> None:
    torch.manual_seed(0)
    net = VolumeNet(width=4).eval()
    for case in map(Case, people):
        found = mistakes.of_patient(net, case)
        assert set(found) == {t for t, known in zip(TARGETS, case.labelled, strict=True) if known}
        places = found[Target.LIVER]
        organ = case.organ[Target.LIVER]
        assert 0 < len(places) <= mistakes.MOST
        for place in places:
            assert (np.abs(organ - place).max(1) <= 4 + 1).any()  # voxels: `REACH`, and sampling
            for spot in case.lesion.get(Target.LIVER, []):
                assert np.abs(place - spot).max() > mistakes.AWAY


def test_they_are_kept_and_taken_up(people: list[Entry], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, cases, path = VolumeNet(width=4), [Case(e) for e in people], tmp_path / "seen.jsonl"
    said: list[str] = []
    whole = mistakes.collect(net, cases, path, every=2, log=said.append)
    assert [number for number, _ in whole[Target.LIVER]] == [0, 2]
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\n")
    again = mistakes.collect(net, cases, path, every=2, log=said.append)
    assert path.read_text().splitlines() == lines
    for (_, a), (_, b) in zip(whole[Target.LIVER], again[Target.LIVER], strict=True):
        assert a.tolist() == b.tolist()


def test_negatives_are_often_mistakes(people: list[Entry]) -> None:
    far = np.array([[3, 3, 3]], np.int16)
    task = VolumeTask(people, width=4, hard={Target.LIVER: [(1, far)]})
    drawn = [task._places(Target.LIVER, False, np.random.default_rng(i)) for i in range(200)]
    hard = [spots is far for _, spots in drawn]
    assert np.mean(hard) == pytest.approx(HARD, abs=0.1)
    assert all(case is task.cases[1] for case, spots in drawn if spots is far)
    assert all(task._places(Target.LIVER, True, np.random.default_rng(i))[1] is not far
               for i in range(20))  # fmt: skip
