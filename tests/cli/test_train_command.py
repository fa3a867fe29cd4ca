"""`triage train` as a command: wrong use is one line, and a kill costs nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.training.small_layout import write_layout
from triage.cli.main import call
from triage.cli.train import NETWORKS, SIZES, UNFROZEN, Steps, chosen
from triage.types import Target


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
