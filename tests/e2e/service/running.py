"""The whole service as its own process: `triage serve` on free ports and a home of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from .leaks import leaked

START_S = 120.0
LISTEN = "0A"  # of /proc/net/tcp
ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Running:
    """One `triage serve`; `start` again after `kill` finds the same home and ports."""

    def __init__(self, home: Path, quick: bool = True, **settings: Any) -> None:
        """`quick`: the stand-in of `quick_pipeline` analyses; else the real pipeline does."""
        self.home, self.quick = home, quick
        self.http_port, self.dicom_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.log = home.with_suffix(".log")
        self.settings = {
            "home": home,
            "http_port": self.http_port,
            "dicom_port": self.dicom_port,
            "series_quiet_s": 1,
            "threads": 1,
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        ours = {f"TRIAGE_{name.upper()}": str(value) for name, value in self.settings.items()}
        folders = (str(ROOT), str(ROOT / "tests" / "service"), os.environ.get("PYTHONPATH"))
        path = os.pathsep.join(filter(None, folders))
        return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **ours}

    def launch(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the process in a group of its own, without waiting."""
        program = ["serve_quick"] if self.quick else ["triage.cli.main", "serve"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *program, *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    def start(self) -> Running:
        process = self.launch()
        until(lambda: self._answers(process), START_S, f"no answer; log: {self.log}")
        return self

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise AssertionError(f"serve ended with {process.returncode}:\n{self.tail()}")
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        return False

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """kill -9 of the service's own process; what it started must end by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=30)

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its own group: nobody else's
            self.process.wait(timeout=10)
            raise

    # ---- what the API says

    def get(self, path: str, **options: Any) -> Any:
        answer = httpx.get(self.url + path, timeout=30, **options)
        answer.raise_for_status()
        return answer.json()

    def studies(self, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/api/v1/studies", params={"limit": 500, **query})[
            "studies"
        ]
        return found

    def study(self, uid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/api/v1/studies/{uid}")
        return found

    def finished(self, uid: str, seconds: float = 240) -> dict[str, Any]:
        """The study once a verdict, or the reason why there is none, is shown."""

        def look() -> dict[str, Any] | None:
            answer = httpx.get(f"{self.url}/api/v1/studies/{uid}", timeout=30)
            if answer.status_code != 200:
                return None
            found: dict[str, Any] = answer.json()
            return found if found["finished_at"] is not None else None

        done: dict[str, Any] = until(look, seconds, f"study {uid} has no verdict")
        return done

    def whole(self, uid: str, instances: int, seconds: float = 120) -> dict[str, Any]:
        """The study once it is finished with that many images."""

        def look() -> dict[str, Any] | None:
            found = self.finished(uid, seconds)
            return found if found["instances"] == instances else None

        done: dict[str, Any] = until(look, seconds, f"study {uid} lacks some of {instances}")
        return done

    def readiness(self) -> dict[str, str]:
        """Each check of /readyz."""
        found: dict[str, str] = httpx.get(f"{self.url}/readyz", timeout=30).json()["checks"]
        return found

    def delete(self, uid: str) -> int:
        return httpx.delete(f"{self.url}/api/v1/studies/{uid}", timeout=30).status_code

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The server-sent events, as (kind, data)."""
        with httpx.stream("GET", f"{self.url}/api/v1/events", timeout=60) as answer:
            kind = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    yield kind, json.loads(line[6:])

    # ---- what the system says (Linux)

    def listening(self) -> set[int]:
        """Ports that the service and its children listen on."""
        return {port for state, _, port, _ in self._sockets() if state == LISTEN}

    def peers(self) -> set[str]:
        """Addresses at the other end of its connections."""
        return {peer for state, _, _, peer in self._sockets() if state != LISTEN}

    def _sockets(self) -> Iterator[tuple[str, str, int, str]]:
        """(state, own address, own port, peer's address) of each of its TCP and UDP sockets."""
        inodes = set()
        for pid in [self.pid, *self.children()]:
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    inodes.add(str(handle.readlink()))
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if f"socket:[{fields[9]}]" in inodes:
                    (own, port), (peer, _) = (f.split(":") for f in fields[1:3])
                    yield fields[3], _address(own), int(port, 16), _address(peer)

    def children(self) -> list[int]:
        """Process ids of everything below the service (Linux)."""
        found, below = [], [self.pid]
        while below:
            pid = below.pop()
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    below += [int(p) for p in (task / "children").read_text().split()]
            found += [] if pid == self.pid else [pid]
        return found


def _address(text: str) -> str:
    """An address of /proc/net/tcp: hexadecimal, each 32 bits in the machine's byte order."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    packed = b"".join(words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def until(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `look` gives once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"after {seconds:g} s: {what}")


@contextmanager
def service(home: Path, quick: bool = True, **settings: Any) -> Iterator[Running]:
    """A running service, ended at the end by its own process id; its log names no patient."""
    running = Running(home, quick, **settings)
    try:
        yield running.start()
    finally:
        if running.process is not None:
            running.stop()
    assert leaked(home, running.log) == []
