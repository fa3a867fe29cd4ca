"""No socket leaves the process in `triage run`: it runs without any network, and asks for none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What Python's sockets were asked for in the run, imports included.
HOOKED = """
import sys
seen = []
def hook(event, args):
    if event.startswith("socket."):
        seen.append(event)
sys.addaudithook(hook)
from triage.cli.main import main
sys.argv = ["triage", "run", sys.argv[1], "--out", sys.argv[2]]
try:
    main()
finally:
    outside = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
    sys.stderr.write("SOCKETS " + ",".join(sorted(outside & set(seen))) + "\\n")
"""


def _can(*command: str) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.timeout(600)
def test_no_socket_leaves_the_process(shared: Path, tmp_path: Path) -> None:
    """An empty cache, so that the networks are converted as well.

    The audit hook sees Python's sockets, strace those of libraries too; without a network
    interface the run must end as it does with one. What is not installed is left out.
    """
    log = tmp_path / "sockets"
    around: list[str] = []
    if _can("unshare", "-n", "true"):
        around += ["unshare", "-n"]
    traced = _can("strace", "-o", os.devnull, "true")
    if traced:
        around += ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(log)]
    source, out = shared / "ct" / "portal_slab_dicom", tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRIAGE_HOME": str(tmp_path / "home")}
    command = [*around, sys.executable, "-c", HOOKED, str(source), str(out)]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((out / "report.json").read_text())["status"] == "analysed"
    assert done.stderr.rstrip().splitlines()[-1].strip() == "SOCKETS", done.stderr[-500:]
    if traced:
        told = [x for x in log.read_text().splitlines() if "AF_INET" in x and " socket(" not in x]
        # urllib3 binds to ::1, and closes again, to see whether there is IPv6; nothing is sent.
        assert not [x for x in told if not (" bind(" in x and ('"::1"' in x))], told[:20]
    assert list((tmp_path / "home" / "cache" / "engines").glob("*.blob"))
