"""What a whole run may not leave behind: a patient in the log of the service."""

from __future__ import annotations

import sqlite3
from pathlib import Path

FIELDS = ("patient_name", "patient_id", "patient_birth_date", "accession_number")
SHORTEST = 4  # characters; less is found anywhere by chance


def patients(home: Path) -> set[str]:
    """Every value that names a patient of the studies in this home."""
    database = sqlite3.connect(f"file:{home / 'triage.db'}?mode=ro", uri=True)
    try:
        found = database.execute(f"SELECT {', '.join(FIELDS)} FROM studies").fetchall()  # noqa: S608
    except sqlite3.OperationalError:  # a drill left no table behind
        return set()
    finally:
        database.close()
    return {value for row in found for value in row if len(value) >= SHORTEST}


def leaked(home: Path, log: Path) -> list[str]:
    """Lines of the log that name one of them."""
    if not (home / "triage.db").is_file() or not log.is_file():
        return []
    names = patients(home)
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if any(name in line for name in names)]
