"""The engine: SQLite or PostgreSQL behind one class."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_S = 5.0  # seconds to wait for another writer
_LOCK_ID = 0x7412A6E  # PostgreSQL advisory lock of the migrations


class DatabaseBusyError(RuntimeError):
    """The database is locked or cannot be reached: nothing was written, try again later."""


class DatabaseFullError(RuntimeError):
    """The database cannot grow: nothing was written."""


class Database:
    """One database. `url`: sqlite:///file or postgresql://...; safe to use from many threads."""

    def __init__(self, url: str, busy_s: float = BUSY_S) -> None:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.url = parsed
        self.sqlite = parsed.get_backend_name() == "sqlite"
        self._file: tuple[int, int] | None = None  # device and inode of the SQLite file
        self.engine = self._sqlite(busy_s) if self.sqlite else self._postgres(busy_s)
        self._write = sessionmaker(self.engine, expire_on_commit=False)
        reading = self.engine.execution_options(triage_reading=True)
        self._read = sessionmaker(reading, expire_on_commit=False)

    @classmethod
    def at_home(cls, home: Path, url: str | None = None) -> Database:
        """The database of the settings: `url`, or the SQLite file in the home."""
        return cls(url or f"sqlite:///{home.expanduser().resolve() / 'triage.db'}")

    def session(self) -> AbstractContextManager[Session]:
        """One writing transaction: commits on leaving, rolls back on an exception.

        Raises DatabaseBusyError, DatabaseFullError.
        """
        return self._transaction(self._write, at_once=True)

    def reading(self) -> AbstractContextManager[Session]:
        """One reading transaction: sees one state, blocks no writer of SQLite."""
        return self._transaction(self._read)

    @contextmanager
    def _transaction(self, make: sessionmaker[Session], at_once: bool = False) -> Iterator[Session]:
        self._same_file()
        with translated(), make.begin() as session:
            if at_once:
                session.connection()  # BEGIN now, not with the first statement
            yield session
        if at_once:
            self._same_file()

    def _same_file(self) -> None:
        """Raises DatabaseBusyError where the SQLite file was removed or exchanged meanwhile.

        Open connections would go on writing into the removed one without an error: what was
        acknowledged would be gone with this process.
        """
        if self._file is not None and self._file != self._found():
            raise DatabaseBusyError("The database's file is gone or another one: put it back")

    def _found(self) -> tuple[int, int] | None:
        try:
            status = Path(str(self.url.database)).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def is_new(self) -> bool:
        """Whether nothing was ever written into it: it has no schema yet."""
        if self.sqlite and self._found() is None:
            return True
        with translated(), self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() is None

    def upgrade(self) -> None:
        """Bring the schema to the newest revision; one process at a time, any number may try."""
        if self.sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._migration_lock(), self.engine.connect() as connection:
            if MigrationContext.configure(connection).get_current_revision() != head():
                connection.rollback()
                config = migration_config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
        if self.sqlite and self.url.database not in (None, "", ":memory:"):
            self._file = self._found()

    @contextmanager
    def _migration_lock(self) -> Iterator[None]:
        if self.sqlite:
            with Path(f"{self.url.database}.upgrade").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            return
        with self.engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": _LOCK_ID})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:id)"), {"id": _LOCK_ID})

    def check(self) -> str:
        """ "ok", or what is wrong: for health checks."""
        try:
            with self.reading() as session:
                session.execute(text("SELECT 1 FROM studies LIMIT 1"))
        except (DatabaseBusyError, DatabaseFullError, DBAPIError) as error:
            return f"database: {type(error).__name__}"
        return "ok"

    def close(self) -> None:
        self.engine.dispose()

    def _sqlite(self, busy_s: float) -> Engine:
        engine = create_engine(
            self.url,
            connect_args={"timeout": busy_s, "check_same_thread": False},
            pool_size=16,
            max_overflow=112,
            hide_parameters=True,  # an error's text goes into logs, and values name patients
        )

        @event.listens_for(engine, "connect")
        def pragmas(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # BEGIN is ours, see below
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",  # a commit survives the loss of power
                "foreign_keys=ON",
                f"busy_timeout={int(busy_s * 1000)}",
            ):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A transaction that reads first and writes later fails at once, without waiting, where
            # another has written between: writers take the lock when they begin.
            reading = connection.get_execution_options().get("triage_reading")
            connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

        return engine

    def _postgres(self, busy_s: float) -> Engine:
        options = f"-c lock_timeout={int(busy_s * 1000)} -c timezone=UTC"
        return create_engine(
            self.url,
            connect_args={"options": options, "connect_timeout": 10},
            pool_pre_ping=True,
            pool_size=8,
            max_overflow=24,
            hide_parameters=True,
        )


_FULL = ("database or disk is full", "no space left", "disk quota", "disk i/o error")


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the driver as DatabaseBusyError or DatabaseFullError; others as they are."""
    try:
        yield
    except OperationalError as error:
        said = str(error.orig).lower()
        if any(words in said for words in _FULL):
            raise DatabaseFullError("The database cannot grow") from error
        raise DatabaseBusyError("The database is locked or cannot be reached") from error
    except PoolTimeoutError as error:
        raise DatabaseBusyError("Too many transactions at once") from error


def migration_config() -> Config:
    """Alembic's settings; no file is needed."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def head() -> str | None:
    """The newest revision that this version knows."""
    return ScriptDirectory.from_config(migration_config()).get_current_head()
