"""Real peers: DCMTK's storescu and echoscu, run as the field runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path


@cache
def dcmtk(program: str) -> str | None:
    """Path of a DCMTK program; pynetdicom installs a storescu of the same name."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in [*folders, "/usr/bin"]:
        found = shutil.which(program, path=folder)
        if found is None:
            continue
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        if "dcmtk" in (said.stdout + said.stderr).lower():
            return found
    return None


def storescu(
    port: int, *paths: Path, called: str = "TRIAGE", calling: str = "SCANNER"
) -> subprocess.Popen[bytes]:
    """Send files or folders over one association, without waiting for the end."""
    program = dcmtk("storescu")
    assert program is not None, "DCMTK is not installed"
    command = [
        program,
        "-v",
        "-R",
        "-aec",
        called,
        "-aet",
        calling,
        "+sd",
        "+r",
        "+sp",
        "*.dcm",
        "127.0.0.1",
        str(port),
    ]
    return subprocess.Popen(
        [*command, *map(str, paths)],
        env={**os.environ, "TCP_NODELAY": "1"},  # else each image stalls 49 ms
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def send(port: int, *paths: Path, **options: str) -> float:
    """Send and wait: the monotonic time of the last response. Raises AssertionError if refused."""
    sender = storescu(port, *paths, **options)
    said, _ = sender.communicate(timeout=300)
    assert sender.returncode == 0, said.decode(errors="replace")[-2000:]
    return time.monotonic()
