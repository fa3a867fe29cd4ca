"""Short drills; `scripts/drills` runs them for long. Those that other tests hold are in `table`."""

from __future__ import annotations

import ast
import sqlite3
from pathlib import Path

import pytest

from tests.drills import clocks, databases, kills, senders, weights
from tests.drills.table import ROUNDS, TESTS
from triage.service.images.files import Files
from triage.service.records import Database, DatabaseBusyError
from triage.service.service import CannotStartError, Service
from triage.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_senders_that_break_off(tmp_path: Path) -> None:
    figures = senders.breaking_off(tmp_path, 2)
    assert figures["acknowledged"] > 0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_sent_again_and_late(tmp_path: Path) -> None:
    assert senders.again_and_late(tmp_path, 1)["versions"] == 2


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    assert clocks.jumps(tmp_path, 1)["jumps"] == 2


def test_a_database_that_vanishes(tmp_path: Path) -> None:
    figures = databases.vanished(tmp_path, 1)
    assert figures["refused"] > 0


def test_exchanged_weights(tmp_path: Path) -> None:
    assert weights.swapped(tmp_path, 1)["refused"] == 1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_kill_9(tmp_path: Path) -> None:
    """Two moments of it are in tests/e2e/service/test_receiving.py."""
    assert kills.kill_rounds(tmp_path, 5)["acknowledged"] > 0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_locked_database(tmp_path: Path) -> None:
    databases.locked(tmp_path, 2)


# ---- what the drills found


def test_an_exchanged_database_file_takes_nothing(tmp_path: Path) -> None:
    """Open connections would write into the removed file without any error."""
    database = Database.at_home(tmp_path)
    database.upgrade()
    with database.session():
        pass
    path = tmp_path / "triage.db"
    path.rename(tmp_path / "away")
    for transaction in (database.session, database.reading):
        with pytest.raises(DatabaseBusyError), transaction():
            pass
    assert database.check() != "ok"
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(DatabaseBusyError), database.session():
        pass  # another file of that name
    path.unlink()
    (tmp_path / "away").rename(path)
    with database.session():
        assert database.check() == "ok"
    database.close()


def test_a_database_file_that_vanishes_in_a_transaction_is_noticed(tmp_path: Path) -> None:
    database = Database.at_home(tmp_path)
    database.upgrade()
    with pytest.raises(DatabaseBusyError), database.session():
        (tmp_path / "triage.db").unlink()
    database.close()


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_images_without_their_database_are_not_removed(tmp_path: Path, left: str) -> None:
    """The sweep at start removes what has no row; with a new database that would be everything."""
    files = Files(tmp_path)
    files.open()
    image = files.studies / ("a" * 32) / f"{'b' * 32}.dcm"
    image.parent.mkdir()
    image.write_bytes(b"image")
    files.close()
    if left == "an empty file":
        (tmp_path / "triage.db").touch()
    for _ in range(2):  # the first try must not make what lets the second one pass
        with pytest.raises(CannotStartError, match="Put the database back"):
            Service(Settings(home=tmp_path, dicom_port=0, embedded_worker=False)).start()
    assert image.read_bytes() == b"image"


# ---- the table


def test_every_test_in_the_table_is_there() -> None:
    for drill in TESTS.values():
        for node in drill.nodes:
            path, _, name = node.partition("::")
            tree = ast.parse((ROOT / path).read_text())
            found = {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}
            assert not name or name.partition("[")[0] in found, node
    assert not set(ROUNDS) & set(TESTS)
