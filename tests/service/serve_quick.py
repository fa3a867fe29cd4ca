"""`triage serve` with the quick analysis of `quick_pipeline`: for tests of everything around it."""

from __future__ import annotations

import logging
import sys

from quick_pipeline import LOAD

from triage.cli.serve import run
from triage.settings import Settings

if __name__ == "__main__":
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        run(Settings(), load=LOAD)
    except Exception as error:  # typer turns its own into exit codes; here we do
        sys.exit(getattr(error, "exit_code", 1))
