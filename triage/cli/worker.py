"""`triage worker`: a further worker, on this machine or another."""

from __future__ import annotations

import logging
import sys

import typer

from triage.cli.common import Exit, load_settings, plain


def worker() -> None:
    """Analyse what `triage serve` takes, until SIGTERM or Ctrl-C.

    On another machine it needs TRIAGE_DATABASE_URL (PostgreSQL) and the same TRIAGE_HOME, shared.
    """
    settings = load_settings()
    logging.basicConfig(
        level=logging.DEBUG if settings.debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    for noisy in ("alembic", "dbos"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

    from triage.service.workflow.identity import WorkerInUseError
    from triage.service.workflow.worker import run

    def started(executor: str) -> None:
        print(f"worker        {plain(executor)}", flush=True)
        print(f"home          {plain(settings.home.expanduser())}", flush=True)

    try:
        ended = run(settings, started=started)
    except WorkerInUseError as error:
        print(f"triage: cannot start: {plain(error)}", file=sys.stderr)
        raise typer.Exit(Exit.USAGE) from error
    print(f"{plain(ended).capitalize()}.", file=sys.stderr, flush=True)
    if ended != "stopped":
        raise typer.Exit(Exit.FAULT)
