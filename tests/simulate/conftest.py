"""A small data set of simulated patients, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from triage.simulate.study import write_dataset

# Coarse on purpose: the whole way in seconds.
COARSE: dict[str, Any] = {
    "enriched": 0.7,
    "injured": True,
    "spacing": (4.0, 4.0, 6.0),
    "matrix": 96,
}
SEED = 3


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three injured patients in the layout of the challenge."""
    out = tmp_path_factory.mktemp("simulated") / "data"
    write_dataset(out, 3, SEED, **COARSE)
    return out
