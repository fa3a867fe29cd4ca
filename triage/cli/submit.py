"""`triage submit`: retrospective studies by the thousand, behind the live ones."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triage.cli.common import Exit, load_settings, plain

if TYPE_CHECKING:
    from triage.service.records import Database
    from triage.settings import Settings

ENDED = ("refused", "analysed", "not_analysed", "not_applicable")
LOOK_S = 0.5
Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FOLDER...", help="Folders or zips of DICOM; each may hold many studies."
    ),
]


def submit(
    folders: Folders = None,
    name: Annotated[
        str, typer.Option("--name", help="Of the cohort; the same name goes on with it.")
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until all are analysed, with progress.")
    ] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the results as CSV.")] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Write the results as Parquet.")
    ] = None,
) -> None:
    """Queue many studies as one cohort; live studies overtake them.

    `triage serve` takes them; where none runs, --wait does the work itself. Called again with the
    same name, only what is new is added, and --csv writes what there is.
    """
    settings = load_settings()
    _check(folders or [], name, csv, parquet)

    from triage.service.records import Database, cohorts
    from triage.service.workflow.cohort import find_studies

    settings.home.expanduser().mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database.at_home(settings.home, settings.database_url)
    database.upgrade()
    name = name or (folders or [Path()])[0].expanduser().resolve().name
    found = find_studies(folders or [])
    with database.session() as session:
        cohort = cohorts.by_name(session, name)
        if cohort is None:
            if not found:
                raise typer.BadParameter("No study was found there, and no cohort has that name.")
            cohort, added = cohorts.create(session, name, found), len(found)
        else:
            added = cohorts.add(session, cohort.id, found)
        cohort_id = cohort.id
    print(f"cohort {plain(name)}: {len(found)} studies found, {added} of them new", flush=True)
    if wait and not _work(settings, database, cohort_id):
        raise typer.Exit(Exit.STOPPED)
    _tell(database, cohort_id, wait)
    _write(database, cohort_id, csv, parquet)
    database.close()


def _check(folders: list[Path], name: str, csv: Path | None, parquet: Path | None) -> None:
    if not folders and not name:
        raise typer.BadParameter("Name folders, or a cohort with --name.")
    for folder in folders:
        if not folder.exists():
            raise typer.BadParameter(f"No such file or folder: {plain(folder)}")
    for out in (csv, parquet):
        if out is not None and not out.expanduser().resolve().parent.is_dir():
            raise typer.BadParameter(f"No such folder: {plain(out.parent)}")
    if parquet is not None:
        import importlib.util

        if importlib.util.find_spec("pyarrow") is None:
            raise typer.BadParameter(
                "--parquet needs pyarrow: pip install 'trauma-ct-triage[table]'"
            )


def _work(settings: Settings, database: Database, cohort_id: str) -> bool:
    """Wait until all have ended; False if it was stopped before."""
    from triage.service.images.files import HomeInUseError
    from triage.service.workflow.station import station

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with station(settings, database):
            return _follow(database, cohort_id, stopped)
    except HomeInUseError:
        print("the service that owns this home does the work", flush=True)
        return _follow(database, cohort_id, stopped)


def _follow(database: Database, cohort_id: str, stopped: threading.Event) -> bool:
    from triage.service.records import cohorts

    with _bar() as show:
        while not stopped.is_set():
            with database.reading() as session:
                counts = cohorts.progress(session, cohort_id)
            done = sum(counts[key] for key in ENDED)
            show(done, counts["total"])
            if done >= counts["total"]:
                return True
            stopped.wait(LOOK_S)
    print("Stopped; the same command goes on.", file=sys.stderr)
    return False


class _Show:
    """Quiet where nobody looks."""

    def __call__(self, done: int, total: int) -> None:
        """In a pipe only the results appear."""


@contextmanager
def _bar() -> Iterator[_Show]:
    if not sys.stderr.isatty():
        yield _Show()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    parts = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("studies", total=None)

        class Shown(_Show):
            def __call__(self, done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

        yield Shown()


def _tell(database: Database, cohort_id: str, waited: bool) -> None:
    from triage.service.records import cohorts, queue

    with database.reading() as session:
        counts = cohorts.progress(session, cohort_id)
        workers = [beat for beat in queue.beats(session) if beat.number != queue.STOPPED]
    told = ", ".join(f"{number} {key.replace('_', ' ')}" for key, number in counts.items())
    print(told, flush=True)
    left = counts["total"] - sum(counts[key] for key in ENDED)
    if left and not waited and not workers:
        print("No worker runs here: start `triage serve`, or add --wait.", file=sys.stderr)


def _write(database: Database, cohort_id: str, csv: Path | None, parquet: Path | None) -> None:
    from triage.service.workflow import table

    if csv is None and parquet is None:
        return
    rows = table.rows(database, cohort_id)
    if csv is not None:
        table.write_csv(rows, csv.expanduser())
    if parquet is not None:
        table.write_parquet(rows, parquet.expanduser())
