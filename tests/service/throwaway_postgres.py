"""A PostgreSQL cluster for the tests: in a temporary folder, on a unix socket, no port."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = Path("/usr/lib/postgresql")
USER = "postgres"


def programs() -> Path | None:
    """The folder of the newest server's programs; None where there is none."""
    found = sorted(PROGRAMS.glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    return found[-1].parent if found else None


@contextmanager
def cluster(programs: Path) -> Iterator[str]:
    """The address of a fresh server without the name of a database: `url.format(database)`."""
    folder = Path(tempfile.mkdtemp(prefix="triage-pg-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses root
        shutil.chown(folder, USER)
        as_user = ["runuser", "-u", USER, "--"]

    def call(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs / program), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    call("initdb", "-D", data, "-A", "trust", "-U", USER, "--no-sync", "-E", "UTF8")
    options = f"-c listen_addresses='' -k {folder} -c fsync=off -c max_connections=100"
    call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://{USER}@/{{}}?host={folder}"
    finally:
        call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
