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

START_S = 60.0
ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Running:
    """One `triage serve`; `start` again after `kill` finds the same home and ports."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.home = home
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
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **ours}

    def launch(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the process in a group of its own, without waiting."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "triage.cli.main", "serve", *arguments],
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

        return until(look, seconds, f"study {uid} has no verdict")

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


def until(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `look` gives once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"after {seconds:g} s: {what}")


@contextmanager
def service(home: Path, **settings: Any) -> Iterator[Running]:
    """A running service, ended at the end by its own process id."""
    running = Running(home, **settings)
    try:
        yield running.start()
    finally:
        if running.process is not None:
            running.stop()


def events(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The server-sent events of the service, as (kind, data)."""
    with httpx.stream("GET", f"{url}/api/v1/events", timeout=60) as answer:
        kind = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                yield kind, json.loads(line[6:])
