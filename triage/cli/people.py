"""What the commands about users, tokens and the audit log share."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from triage.cli.common import load_settings

if TYPE_CHECKING:
    from triage.service.access.principal import Role
    from triage.service.records import Database


@contextmanager
def records() -> Iterator[Database]:
    """The service's database, brought up to date; what makes no sense is wrong use."""
    from triage.service.access.users import AccessError
    from triage.service.records import Database

    settings = load_settings()
    settings.home.expanduser().mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database.at_home(settings.home, settings.database_url)
    try:
        database.upgrade()
        yield database
    except AccessError as error:
        raise typer.BadParameter(str(error)) from error
    finally:
        database.close()


def checked_roles(names: list[str]) -> frozenset[Role]:
    """Raises typer.BadParameter for what is no role."""
    from triage.service.access.principal import Role

    unknown = [name for name in names if name not in set(Role)]
    if unknown or not names:
        raise typer.BadParameter(f"--role is one of {', '.join(Role)}, got {', '.join(unknown)}")
    return frozenset(Role(name) for name in names)


def me() -> str:
    """The actor of the audit log: who uses this console."""
    try:
        return f"console:{getpass.getuser()}"
    except (KeyError, OSError):
        return "console"


def ask_password() -> str:
    """From a prompt, twice; from a pipe the first line. Never from the arguments: others read them
    in the list of processes."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        raise typer.BadParameter("The two passwords differ.")
    return first


def columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows under each other, one blank column apart."""
    from triage.cli.common import plain

    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = (plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
