"""`triage serve` refuses to start with one clear line, and leaves nothing open."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quick_pipeline import LOAD

from triage.cli.common import Exit
from triage.cli.main import call
from triage.service.service import CannotStartError, Service
from triage.settings import Settings
from triage.settings import settings as process_settings

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be refused


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def refusal(home: Path, **settings: Any) -> str:
    with pytest.raises(CannotStartError) as caught:
        Service(Settings(home=home, **{"dicom_port": 0, **settings}), load=LOAD).start()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "TRIAGE_HOME" in refusal(tmp_path / "file" / "home")


def test_a_second_service_on_the_same_home(home: Path) -> None:
    first = Service(Settings(home=home, dicom_port=0, embedded_worker=False), load=LOAD)
    first.start()
    try:
        assert "Another service uses" in refusal(home)
    finally:
        first.stop()
    first = Service(Settings(home=home, dicom_port=0, embedded_worker=False), load=LOAD)
    first.start()  # the home is free again
    first.stop()


@pytest.mark.parametrize("url", ["nonsense", "mysql://localhost/x", "postgresql://127.0.0.1:1/x"])
def test_a_database_that_cannot_be_used(home: Path, url: str) -> None:
    assert "TRIAGE_DATABASE_URL" in refusal(home, database_url=url)


def test_a_password_is_not_shown(home: Path) -> None:
    assert "s3cret" not in refusal(home, database_url="postgresql://me:s3cret@127.0.0.1:1/x")


def test_a_locked_database(home: Path) -> None:
    home.mkdir()
    other = sqlite3.connect(home / "triage.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert "locked" in refusal(home)
    finally:
        other.close()


def test_a_taken_dicom_port(home: Path, taken: int) -> None:
    assert "TRIAGE_DICOM_PORT" in refusal(home, dicom_port=taken, embedded_worker=False)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("HTTP_PORT", None, "TRIAGE_HTTP_PORT"),
        ("HTTP_HOST", EVERYWHERE, "TRIAGE_TLS_CERT"),
        ("HTTP_HOST", "example.org", "TRIAGE_TLS_CERT"),
        ("DICOM_HOST", EVERYWHERE, "TRIAGE_SENDERS"),
    ],
)
def test_the_command_says_why_it_does_not_start(
    home: Path,
    taken: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    value: str | None,
    says: str,
) -> None:
    monkeypatch.setenv("TRIAGE_HOME", str(home))
    monkeypatch.setenv(f"TRIAGE_{setting}", value or str(taken))
    process_settings.cache_clear()
    try:
        assert call(["serve"]) == Exit.USAGE
    finally:
        process_settings.cache_clear()
    error = capsys.readouterr().err
    assert error.startswith("triage: cannot start: ") and error.count("\n") == 1
    assert says in error
    assert not home.exists()


def test_what_answers_over_http_loads_no_networks() -> None:
    """They are the worker's; importing them would double the time until the first answer."""
    heavy = ["torch", "monai", "SimpleITK", "matplotlib", "scipy.stats"]
    code = f"import sys, triage.service.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
