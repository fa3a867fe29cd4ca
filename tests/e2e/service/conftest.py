"""Studies to send: small ones, made here; simulated patients for those that ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .patients import simulate_thin
from .peers import dcmtk
from .running import Running, service


@pytest.fixture(scope="session")
def storescu() -> str:
    found = dcmtk("storescu")
    if found is None:
        pytest.skip("DCMTK's storescu is not installed")
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with service(tmp_path_factory.mktemp("running") / "home") as found:
        yield found


@pytest.fixture(scope="session")
def thin_patient(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """400 slices of 512 x 512, 1 mm apart."""
    return simulate_thin(tmp_path_factory.mktemp("thin"), 400)
