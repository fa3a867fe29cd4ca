"""The running service connects to nobody but those whom its settings name.

Two watchers: a hook in each of its Python processes (start, analysing child, decoding child), and
strace (a long test), for what libraries do by themselves. That both see is proved by the
one connection that is configured: a webhook.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import ZIP, study_zip
from instances import study_uid

from tests.delivery.peers import Web

from .running import Running, until

STUDY = 8801
# Python imports `sitecustomize` at the start of every process that finds one.
HOOK = """
import os, sys
def _hook(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        said = str(args[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        said = str(args[0])
    else:
        return
    line = f"{os.getpid()} {event} {said}\\n".encode()
    handle = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line)
    os.close(handle)
sys.addaudithook(_hook)
"""
AT = re.compile(r"sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\"")


class Watched(Running):
    """A service whose processes write down whom they talk to."""

    strace: Path | None = None

    def launch(self, *arguments: str) -> subprocess.Popen[bytes]:
        if self.strace is None:
            return super().launch(*arguments)
        around = [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-e",
            "trace=connect,sendto,sendmsg,sendmmsg",
        ]
        command = [*around, "-o", str(self.strace), sys.executable]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-m", "serve_quick", *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    def end(self) -> None:
        """SIGTERM for the service; strace, which ignores it, ends with it."""
        assert self.process is not None
        if self.strace is None:
            self.stop()
            return
        task = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        os.kill(int(task.read_text().split()[0]), signal.SIGTERM)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own group: nobody else's
            raise


def can_trace() -> bool:
    found = shutil.which("strace")
    if found is None:
        return False
    return (
        subprocess.run(
            [found, "-f", "--seccomp-bpf", "-o", os.devnull, "true"], check=False
        ).returncode
        == 0
    )


def whole_life(folder: Path, strace: bool) -> tuple[list[str], list[str], str]:
    """What the hook saw, what strace saw, and the webhook's address, after start, an analysis, a
    page, a delivery and an end."""
    log = folder / "hook.log"
    (folder / "sitecustomize.py").write_text(f"LOG = {str(log)!r}\n{HOOK}")
    web = Web()
    settings: dict[str, Any] = {
        "deliver_webhook": web.address,
        "deliver_webhook_secret": "0123456789abcdef0123456789",
    }
    running = Watched(folder / "home", **settings)
    running.strace = folder / "strace.log" if strace else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        try:
            running.start()
            done = httpx.post(
                f"{running.url}/api/v1/studies", content=study_zip(STUDY), headers=ZIP, timeout=60
            )
            assert done.status_code == 202
            running.finished(study_uid(STUDY))
            until(lambda: web.posts, 60, "no webhook came")
            assert httpx.get(f"{running.url}/admin", timeout=60).status_code == 200
        finally:
            running.end()
            web.stop()
    traced = running.strace.read_text().splitlines() if running.strace else []
    return log.read_text().splitlines(), traced, web.address.removeprefix("http://")


def test_the_service_connects_to_the_webhook_and_nobody_else(tmp_path: Path) -> None:
    seen, _, webhook = whole_life(tmp_path, strace=False)
    host, port = webhook.split(":")
    connects = {x.split(" ", 2)[2] for x in seen if " socket.connect " in x}
    assert connects == {f"('{host}', {port})"}
    names = {x.split(" ", 2)[2] for x in seen if "addrinfo" in x or "gethostby" in x}
    assert names <= {host, "127.0.0.1", "localhost", "::1", "None"}, names
    assert not [x for x in seen if "sendto" in x or "sendmsg" in x]


@pytest.mark.long
def test_no_library_connects_anywhere_either(tmp_path: Path) -> None:
    if not can_trace():
        pytest.skip("strace is not installed, or may not trace")
    _, traced, webhook = whole_life(tmp_path, strace=True)
    out = [found for x in traced if "AF_INET" in x and (found := AT.search(x))]
    places = {f"{found[2]}:{found[1]}" for found in out}
    # port 0 of the loopback address: asking which address family works, nothing is sent
    assert {p for p in places if not re.fullmatch(r"(127\.0\.0\.1|::1):0", p)} == {webhook}
