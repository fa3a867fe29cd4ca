"""The training loop: resume, early stopping, averaging, several processes, curves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from line_task import Line
from torch import nn

from triage.training.checkpoint import Checkpoint, mix, read, save, trained_weights
from triage.training.curves import Curve, draw
from triage.training.loop import Habits, Plan, train

QUIET = Habits(device="cpu", save_seconds=1e9)


class _KilledError(Exception):
    pass


def same(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, schedule: str) -> None:
    plan = Plan(steps=20, batch=4, schedule=schedule, average=0.9)
    whole = train(Line(), tmp_path / "a", plan, QUIET, log=lambda s: None)
    habits = Habits(device="cpu", log_every=2, save_every=3, save_seconds=1e9)
    lines: list[str] = []

    def killer(text: str) -> None:
        lines.append(text)
        if len(lines) == 4:
            raise _KilledError

    with pytest.raises(_KilledError):
        train(Line(), tmp_path / "b", plan, habits, log=killer)
    assert read(tmp_path / "b/line.pt")["step"] == 6
    resumed = train(Line(), tmp_path / "b", plan, habits, log=lambda s: None)
    assert same(whole, resumed)
    assert not same(whole, Line().net)
    steps = [json.loads(t)["step"] for t in (tmp_path / "b/line.jsonl").read_text().splitlines()]
    assert steps == list(range(2, 21, 2))  # nothing twice, nothing lost


def test_it_learns_and_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    lines: list[str] = []
    plan = Plan(steps=200, batch=16)
    net = train(Line(dropout=0), tmp_path, plan, QUIET, log=lines.append)
    x = torch.randn(64, 4)
    with torch.no_grad():
        assert float(F.mse_loss(net(x), x.sum(1, keepdim=True))) < 0.1
    assert not net.training and "s left" in lines[0]
    again = train(Line(dropout=0), tmp_path, plan, QUIET, log=pytest.fail)
    assert same(net, again)


def test_threads_that_prepare_batches_change_nothing(tmp_path: Path) -> None:
    plan = Plan(steps=8, batch=4)
    one = train(Line(), tmp_path / "a", plan, QUIET, log=lambda s: None)
    many = Habits(device="cpu", workers=3)
    assert same(one, train(Line(), tmp_path / "b", plan, many, log=lambda s: None))


def test_early_stop_keeps_the_best_weights(tmp_path: Path) -> None:
    plan = Plan(steps=100, batch=2, validate_every=5, patience=2)
    lines: list[str] = []
    scores = [0.5, 0.8, 0.7, 0.6]
    stopped = train(Line(scores), tmp_path / "a", plan, QUIET, log=lines.append)
    assert read(tmp_path / "a/line.pt")["step"] == 20
    assert any("stops early" in line for line in lines)
    weights = trained_weights(tmp_path / "a/line.pt")
    assert all(torch.equal(v, weights[k]) for k, v in stopped.state_dict().items())
    again = train(Line([]), tmp_path / "a", plan, QUIET, log=lambda s: None)
    assert same(again, stopped)


def test_a_second_round_ends_between_both(tmp_path: Path) -> None:
    net = nn.BatchNorm1d(2)
    first = {k: v.clone() for k, v in net.state_dict().items()}
    last = {k: v + 4 for k, v in first.items()}
    path = tmp_path / "x.pt"
    save(path, {"net": last, "step": 1})
    for _ in range(2):  # done again it says the same
        mix(path, first, 0.25)
        mixed = trained_weights(path)
        assert torch.equal(mixed["weight"], first["weight"] + 1)
        assert int(mixed["num_batches_tracked"]) == 4  # a count is no weight
    assert read(path)["step"] == 1 and torch.equal(read(path)["net"]["weight"], last["weight"])


def test_settings_cannot_change_half_way(tmp_path: Path) -> None:
    train(Line(), tmp_path, Plan(steps=2), QUIET, log=lambda s: None)
    with pytest.raises(ValueError, match="steps 2 -> 3"):
        train(Line(), tmp_path, Plan(steps=3), QUIET, log=lambda s: None)


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    task = Line()
    nn.init.constant_(task.net[0].weight, float("nan"))  # type: ignore[index]
    with pytest.raises(FloatingPointError, match="line"):
        train(task, tmp_path, Plan(steps=2), QUIET, log=lambda s: None)
    assert not (tmp_path / "line.pt").exists()


def test_a_kill_while_writing_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    net = nn.Linear(2, 2)
    Checkpoint(path, {"net": net}).save(3)
    with pytest.raises(TypeError):
        save(path, {"step": 4, "net": (i for i in range(3))})  # cannot be written: as if killed
    assert read(path)["step"] == 3
    fresh = nn.Linear(2, 2)
    assert Checkpoint(path, {"net": fresh}).resume() == 3 and same(net, fresh)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    save(path, {"step": 1})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"x\.pt"):
        read(path)


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    curve = Curve(tmp_path, "line")
    for step in range(1, 4):
        curve.add(step, {"loss": 1 / step, "lr": 0.1})
    curve.add(3, {"validation score": 0.9})
    curve.close()
    assert (tmp_path / "line.png").read_bytes()[:4] == b"\x89PNG"
    assert not draw([], tmp_path / "none.png", "none")
