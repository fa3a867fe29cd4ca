"""The home of a test of the service."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from throwaway_postgres import cluster, programs


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="session")
def new_database() -> Iterator[Callable[[], str]]:
    """Makes an empty PostgreSQL database; returns its address."""
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL server: install postgresql")
    with cluster(found) as url:

        def make() -> str:
            name = f"triage_{secrets.token_hex(4)}"
            with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
            return url.format(name)

        yield make
