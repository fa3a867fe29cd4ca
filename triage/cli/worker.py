"""`triage worker`: a further worker, on this machine or another."""

from __future__ import annotations

import sys

import typer

from triage.cli.common import Exit, load_settings, plain


def worker() -> None:
    """Analyse what `triage serve` takes, until SIGTERM or Ctrl-C.

    On another machine it needs TRIAGE_DATABASE_URL (PostgreSQL) and the same TRIAGE_HOME, shared.
    """
    settings = load_settings()
    from triage.service.logs import configure
    from triage.service.workflow.identity import WorkerInUseError
    from triage.service.workflow.worker import run

    configure(settings)

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
