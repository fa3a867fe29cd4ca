"""`triage train` as a command: wrong use is one line, and a kill costs nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

from tests.training.small_layout import write_layout
from triage.cli.main import call
from triage.cli.train import NETWORKS, SIZES, UNFROZEN, Steps, chosen
from triage.inference.networks import load_networks
from triage.types import Target

ROOT = Path(__file__).resolve().parents[2]


def test_targets_and_networks_are_told_apart() -> None:
    assert chosen(["liver", "Spleen,volume"]) == ((Target.LIVER, Target.SPLEEN), ("volume",))
    assert chosen(list(NETWORKS)) == ((), NETWORKS)
    with pytest.raises(typer.BadParameter, match="got brain"):
        chosen(["brain"])


def test_choices_are_those_of_the_training() -> None:
    from triage.training import job, start

    assert set(NETWORKS) == set(job.NETWORKS)
    assert list(UNFROZEN) == list(start.UNFROZEN)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--target", "brain"], "brain"),
        (["--target", "liver", "--size", "100"], SIZES[0]),
        (["--target", "liver", "--unfrozen", "3"], "4, 5, 8, 16, all"),
        (["--target", "liver", "--folds", "1"], "--folds"),
        (["--target", "liver"], "train.csv"),
        ([], "--target"),
    ],
)
def test_wrong_use_is_said_and_writes_no_bundle(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    assert call(["train", str(tmp_path / "data"), "--out", str(tmp_path / "b"), *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "b").exists()


def test_without_a_terminal_progress_is_a_line_a_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    for i in range(1, 101):
        steps(f"scored {i} of 100 series", i / 100)
    steps("features 1 of 2", 0.5)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 12
    assert lines[-1] == "features 1 of 2"


def weights(bundle: Path) -> dict[str, str]:
    found = sorted(bundle.glob("*.safetensors"))
    assert found
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.mark.long
def test_killed_in_the_middle_and_resumed_gives_the_same_weights(tmp_path: Path) -> None:
    data = write_layout(tmp_path / "data", [i % 2 == 0 for i in range(20)], slices=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRIAGE_THREADS": "1"}

    def start(out: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "triage.cli.main", "train", str(data)]
        command += ["--target", "liver", "--folds", "2", "--epochs", "3", "--device", "cpu"]
        command += ["--init", "none", "--out", str(tmp_path / out)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )

    for sign in ("features", "liver-fold1"):  # in the cache, then in the second member
        with start("killed") as process:
            assert process.stdout is not None
            for line in process.stdout:
                if sign in line:
                    process.send_signal(signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed").exists()
    for out in ("killed", "whole"):
        with start(out) as process:
            said, _ = process.communicate(timeout=280)
        assert process.returncode == 0, said
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def files(folder: Path) -> set[Path]:
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.long
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    """`torchrun` around the whole command, gloo on the CPU: the same bundle, written once."""
    data = write_layout(tmp_path / "data", [i % 2 == 0 for i in range(20)], slices=1)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TRIAGE_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    said = {}
    for out, processes in (("one", 1), ("two", 2)):
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "triage", "train", str(data), "--target", "liver", "--folds", "2"]
        command += ["--epochs", "3", "--device", "cpu", "--out", str(tmp_path / out)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said[out] = done.stdout
    assert said["two"].count("wrote ") == said["one"].count("wrote ") == 1
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "one.work")) == len(files(tmp_path / "two.work"))
    one, two = (load_networks(tmp_path / out, "cpu").slices for out in ("one", "two"))
    for a, b in zip(one.of(Target.LIVER), two.of(Target.LIVER), strict=True):
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
            assert torch.allclose(x, y, rtol=2e-3, atol=1e-4), name  # stored as fp16
    scores = [
        json.loads((tmp_path / out / "evaluation/metrics.json").read_text())["targets"]["liver"]
        for out in ("one", "two")
    ]
    assert scores[0]["auc"]["value"] == pytest.approx(scores[1]["auc"]["value"], abs=0.02)
