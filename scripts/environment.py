"""Imported first by the Python scripts here: they go on in the project's virtual environment.

`scripts/test` and `scripts/demo` make it. Where the interpreter has the packages, nothing happens.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("TRIAGE_VENV", ROOT / ".venv"))

if importlib.util.find_spec("torch") is None:
    python = VENV / "bin" / "python"
    if Path(sys.prefix).resolve() == VENV.resolve() or not python.exists():
        sys.exit(
            f"error: expected the program's packages in {VENV}, found none. Run scripts/demo or "
            "scripts/test once, which install them, or name another folder: TRIAGE_VENV"
        )
    os.execv(python, [str(python), *sys.argv])
