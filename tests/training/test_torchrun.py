"""Two processes started by `torchrun` take the same steps as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from line_task import Line, train_shared

from triage.training.checkpoint import read, trained_weights

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def torchrun(folder: Path) -> str:
    """`torchrun` on the loopback address, gloo on the CPU; at most two minutes."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *(str(HERE / "line_task.py"), str(folder)),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONFAULTHANDLER": "1",  # a process that dies says where
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    one = train_shared(tmp_path / "one")
    spoken = torchrun(tmp_path / "two")
    assert spoken.count("validation score 0.500") == 1  # only the first process speaks and writes
    # a thread of gloo that outlives its group can abort the process while the interpreter ends
    assert all(f"process {rank} left threads []" in spoken for rank in (0, 1)), spoken
    state, alone = read(tmp_path / "two/line.pt"), read(tmp_path / "one/line.pt")
    assert state["step"] == alone["step"] == 8  # both stopped early
    weights = trained_weights(tmp_path / "two/line.pt")
    for name, value in one.state_dict().items():
        assert torch.allclose(weights[name], value, atol=1e-6), name
        assert torch.allclose(state["net"][name], alone["net"][name], atol=1e-6), name
    fresh = Line().net.state_dict()
    assert any(not torch.allclose(fresh[k], v, atol=1e-3) for k, v in weights.items())
    # what two processes wrote, one goes on with
    again = train_shared(tmp_path / "two")
    assert all(torch.equal(v, weights[k]) for k, v in again.state_dict().items())
