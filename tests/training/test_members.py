"""Members: balanced 1:1, blind to the held-out and the calibration, the same after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.member_job import made_up, run, split_of
from triage.decision.auc import auc
from triage.nets.slice_net import Tail
from triage.training.features import Features
from triage.training.members import MemberTask


def task_of(features: Features, fold: int = 0, frozen: int = 0) -> MemberTask:
    split = split_of(features)
    inside = np.flatnonzero([split.trains(p, fold) for p in features.persons])
    held = np.flatnonzero([split.holds_out(p, fold) for p in features.persons])
    return MemberTask("liver-fold0", Tail(), features, inside, held, frozen)


@torch.no_grad()
def test_a_member_begins_between_the_labels() -> None:
    """However far off the logits of the member are that it starts from."""
    features = made_up()
    tail = Tail()
    tail.classifier.bias -= 4.0
    inside = np.arange(len(features.labels))
    MemberTask("liver", tail, features, inside, inside)
    logits = tail(torch.from_numpy(features.values[:, 0]).float()).numpy()
    means = [logits[features.labels == y].mean() for y in (0, 1)]
    assert sum(means) == pytest.approx(0, abs=0.01)


def test_every_batch_and_so_every_epoch_is_balanced_one_to_one() -> None:
    features = made_up()
    task = task_of(features)
    task.pools[0] = task.pools[0][:5]  # however few there are of one class
    drawn = []
    for step in range(30):
        items = [task.sample(i, np.random.default_rng((1, step, i))) for i in range(16)]
        truth = task.collate(items).truth
        assert int((truth == 1).sum()) == 8
        drawn.append(truth)
    assert float(torch.cat(drawn).mean()) == 0.5


def test_a_member_never_sees_held_out_or_calibration_persons() -> None:
    features = made_up()
    split = split_of(features)
    task = task_of(features, fold=1)
    trained = {features.persons[i] for pool in task.pools for i in pool}
    held = {features.persons[i] for i in task.held}
    assert not trained & held
    assert not any(split.calibrates(p) for p in trained | held)
    assert all(split.holds_out(p, 1) for p in held)


def test_frozen_layers_do_not_learn() -> None:
    task = task_of(made_up(), frozen=3)
    frozen = [name for name, p in task.net.named_parameters() if not p.requires_grad]
    assert {name.split(".")[1] for name in frozen} == {"17"}
    assert all(p.requires_grad for p in task.net.classifier.parameters())
    assert sum(len(g.parameters) for g in task.groups()) == sum(
        p.requires_grad for p in task.net.parameters()
    )


def test_both_labels_are_needed() -> None:
    features = made_up()
    one = np.flatnonzero(features.labels == 1)
    with pytest.raises(ValueError, match="expected both labels among the training slices"):
        MemberTask("liver", Tail(), features, one, one)


@torch.no_grad()
def held_out_auc(members: list[Tail], features: Features) -> float:
    split, labels = split_of(features), features.labels
    found = []
    for k, tail in enumerate(members):
        held = np.flatnonzero([split.holds_out(p, k) for p in features.persons])
        logits = tail(torch.from_numpy(features.values[held, 0].astype(np.float32)))
        found.append(auc(logits.numpy().astype(float), labels[held]))
    return float(np.mean(found))


def test_a_planted_signal_is_learnt(tmp_path: Path) -> None:
    features = made_up()
    assert held_out_auc(run(tmp_path, features, epochs=10), features) > 0.95


def test_shuffled_labels_do_not_transfer(tmp_path: Path) -> None:
    # Persons are what is independent: 400 of them bound the AUC of chance to about 0.5 +- 0.06.
    features = made_up(400, 1, shuffled=True)
    assert 0.4 < held_out_auc(run(tmp_path, features, epochs=2), features) < 0.6


def test_killed_and_resumed_gives_the_same_weights(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.member_job", str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("liver-fold1 ") and "validation" in line:  # in the second member
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    features = made_up()
    resumed = run(tmp_path / "killed", features)
    whole = run(tmp_path / "whole", features)
    for one, two in zip(whole, resumed, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[name]), name
    assert not torch.equal(whole[0].classifier.weight, whole[1].classifier.weight)
