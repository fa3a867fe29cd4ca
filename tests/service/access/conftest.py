"""Houses of the tests of this folder, and their certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from house import House, house, make_certificate

from triage.service.access import users


@pytest.fixture(scope="module", autouse=True)
def cheap_hashes() -> Iterator[None]:
    """argon2id with the least memory: its real cost is no business of most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "HASHER", PasswordHasher(time_cost=2, memory_cost=1 << 10))
        users._nobody.cache_clear()
        yield
    users._nobody.cache_clear()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client", "stranger"):
        make_certificate(folder, name)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("access") / "home", certificates) as found:
        yield found


@pytest.fixture
def open_house(tmp_path: Path, certificates: Path) -> Iterator[Callable[..., House]]:
    """Starts another one with these settings."""
    with ExitStack() as stack:

        def start(**changes: Any) -> House:
            return stack.enter_context(house(tmp_path / "home", certificates, **changes))

        yield start
