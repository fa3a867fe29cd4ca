"""Starts of the service by a fork of a process that has imported everything.

The same service, on the same home and ports, killed as before; only the imports are saved, which on
a busy machine take longer than everything that a drill looks at.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.e2e.service.running import ROOT, Running


class Forked:
    """A process that is not our child, with what `Running` needs of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._handle], [], [], 0)[0]:
            self._ended()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._handle], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("serve", timeout or 0.0)
            self._ended()
        return self.returncode or 0

    def _ended(self) -> None:
        os.close(self._handle)
        self.returncode = 0  # its own code is its parent's to know

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class WarmRunning(Running):
    """`Running`, started by forks. `close` ends the process that forks."""

    def __init__(self, home: Path, **settings: Any) -> None:
        super().__init__(home, quick=True, **settings)
        self._warm = subprocess.Popen(
            [sys.executable, "-m", "tests.drills.warm_service"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
            cwd=ROOT,
            text=True,
        )

    def launch(self, *_arguments: str) -> Any:
        assert self._warm.stdin is not None and self._warm.stdout is not None
        order = {"environment": self.environment, "log": str(self.log)}
        self._warm.stdin.write(json.dumps(order) + "\n")
        self._warm.stdin.flush()
        self.process = Forked(int(self._warm.stdout.readline()))  # type: ignore[assignment]
        return self.process

    def close(self) -> None:
        if self.process is not None:
            self.stop()
        assert self._warm.stdin is not None
        self._warm.stdin.close()
        self._warm.wait(timeout=30)


def main() -> None:
    """One line of stdin, one service; its process id is the answer."""
    import dbos  # noqa: F401
    import quick_pipeline
    import uvicorn  # noqa: F401

    import triage.service.app
    import triage.service.server  # noqa: F401
    from triage.cli.serve import run

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            _serve(order, run, quick_pipeline.LOAD)
        print(pid, flush=True)


def _serve(order: dict[str, Any], run: Any, load: str) -> None:
    from triage.settings import Settings

    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.clear()
        os.environ.update(order["environment"])
        run(Settings(), load=load)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
