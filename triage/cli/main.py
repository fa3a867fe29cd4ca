"""`triage`: the commands, and what becomes of an error.

An error is one line on stderr; TRIAGE_DEBUG=1 shows the traceback. Exit codes: see `common.Exit`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from triage import __version__
from triage.cli.audit import audit
from triage.cli.audit_log import app as audit_log
from triage.cli.common import Exit, plain
from triage.cli.cutoffs import cutoffs
from triage.cli.deidentify import deidentify
from triage.cli.doctor import doctor
from triage.cli.evaluate import evaluate
from triage.cli.explain import explain
from triage.cli.export import export
from triage.cli.info import info
from triage.cli.run import run
from triage.cli.send import outbox, send
from triage.cli.serve import serve
from triage.cli.simulate import simulate
from triage.cli.submit import submit
from triage.cli.token import app as token
from triage.cli.train import train
from triage.cli.user import app as user
from triage.cli.worker import worker
from triage.types import DISCLAIMER

# BadParameter < UsageError < ClickException; typer does not export the latter two.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
ClickException: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="triage",
    help=f"Abdominal trauma CT triage. {DISCLAIMER}.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    run,
    explain,
    simulate,
    train,
    evaluate,
    audit,
    cutoffs,
    export,
    serve,
    worker,
    submit,
    send,
    outbox,
    deidentify,
    info,
    doctor,
):
    app.command()(command)
for name, group in (("user", user), ("token", token), ("audit-log", audit_log)):
    app.add_typer(group, name=name)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Nothing of its own: the commands do the work."""


def main() -> None:
    """Entry point of the console script."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    debug = os.environ.get("TRIAGE_DEBUG", "").lower() in ("1", "true", "yes", "on")
    if not debug:  # libraries' chatter is no news for the user of a command
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())
    try:
        code = app(args=list(arguments), prog_name="triage", standalone_mode=False)
        if code == Exit.STOPPED:  # Ctrl-C inside a command: typer turned it into this exit code
            raise KeyboardInterrupt
        return int(code or Exit.OK)
    except ClickException as error:
        error.show()  # type: ignore[attr-defined]
        return Exit.USAGE
    except (typer.Abort, KeyboardInterrupt):
        print("Stopped.", file=sys.stderr)
        return Exit.STOPPED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAULT
    except Exception as error:
        if debug:
            raise
        text = plain(f"{type(error).__name__}: {error}")[:500]
        print(f"triage: {text} (TRIAGE_DEBUG=1 shows the traceback)", file=sys.stderr)
        return Exit.FAULT


if __name__ == "__main__":
    main()
