"""Heads of the audit log, noted outside the database: a log that was cut short does not have them.

`audit.heads` in the home gets a line at each start and stop of the service and at each successful
`triage audit-log verify`; the service logs the same. Whoever writes to the database alone cannot
take them back; a log server that keeps the service's lines, or the rows (`shipping`), is safer.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from triage.service.access.audit import Head, parse_head
from triage.service.records.models import now

log = logging.getLogger(__name__)
NAME = "audit.heads"


def note(home: Path, head: Head) -> None:
    """Append a line `time COUNT:HASH` and sync it. Raises OSError."""
    line = f"{now().isoformat(timespec='seconds')} {head}\n"
    log.info("audit log: %s", head)
    file = os.open(home / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode("ascii"))
        os.fsync(file)
    finally:
        os.close(file)


def noted(home: Path) -> list[Head]:
    """What was noted; a line that cannot be read is none. Empty where there is no file."""
    path = home / NAME
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        try:
            found.append(parse_head(line.rpartition(" ")[2]))
        except ValueError:
            log.warning("audit.heads: a line cannot be read")
    return found
