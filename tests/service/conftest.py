"""The home of a test of the service."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from asking import BASE
from fastapi.testclient import TestClient
from throwaway_postgres import cluster, programs

from triage.service.app import create_app
from triage.service.service import Service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    """Asks the app of the module's own `service`."""
    app = create_app(service.settings, service)
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        yield client


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
