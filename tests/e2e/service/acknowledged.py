"""What a sender was told, and what of it is there: nothing acknowledged may be lost."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from pathlib import Path

import pydicom

_SENDING = re.compile(r"Sending file: (.+)$")


def acknowledged(sender: subprocess.Popen[bytes]) -> set[str]:
    """SOPInstanceUIDs of the files that storescu (-v) got a success for, once it has ended."""
    said, _ = sender.communicate(timeout=300)
    found, path = set(), None
    for line in said.decode(errors="replace").splitlines():
        if match := _SENDING.search(line):
            path = Path(match[1].strip())
        elif "Received Store Response (Success)" in line and path is not None:
            found.add(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID))
    return found


def stored(home: Path) -> dict[str, Path]:
    """SOPInstanceUID -> file, for every row whose file has the content that the row says."""
    database = sqlite3.connect(f"file:{home / 'triage.db'}?mode=ro", uri=True)
    rows = database.execute("SELECT sop_instance_uid, path, size FROM instances").fetchall()
    database.close()
    found = {}
    for uid, name, size in rows:
        path = home / "images" / name
        assert path.is_file(), f"{uid} has a row and no file"
        assert path.stat().st_size == size, f"{uid} is shorter or longer than it was"
        assert pydicom.dcmread(path).SOPInstanceUID == uid
        found[uid] = path
    return found


def unfinished_files(home: Path) -> list[Path]:
    return [*(home / "images").rglob("*.part"), *(home / "images" / "incoming").glob("*")]


def current_verdicts(home: Path) -> dict[str, int]:
    """StudyInstanceUID -> number of its current analyses."""
    database = sqlite3.connect(f"file:{home / 'triage.db'}?mode=ro", uri=True)
    rows = database.execute(
        "SELECT s.study_instance_uid, COUNT(a.id) FROM studies s LEFT JOIN analyses a "
        "ON a.study_id = s.id AND a.current GROUP BY s.id"
    ).fetchall()
    database.close()
    return dict(rows)
