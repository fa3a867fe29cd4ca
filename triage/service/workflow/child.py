"""The warm child: one process that loads the networks once and analyses study after study.

It may crash, hang or run out of memory; the service lives on. Pixels are decoded in children of
its own, which share its process group and end with it.
"""

from __future__ import annotations

import errno
import importlib
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from triage.service.logs import configure
from triage.settings import Settings

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
# What the child does with one study: (folder of its images, folder for the results, progress).
Analyse = Callable[[Path, Path, Progress], None]
LOAD = "triage.service.workflow.analysis:load"
TICK_S = 0.5
MAX_MESSAGE = 1 << 20


class ChildFailed(Exception):
    """The child ended, or says that the analysis raised an error. A fresh one may do better."""


class DiskFull(ChildFailed):
    """There was no space for the results."""


class Job(NamedTuple):
    source: Path  # folder of the study's images
    out: Path  # folder for report.json and what belongs to it


class Child:
    """One warm child; used by one thread at a time, `kill` by any."""

    def __init__(self, settings: Settings, load: str = LOAD) -> None:
        """`load`: "module:function"; called once in the child with the settings -> `Analyse`."""
        self.settings = settings
        self.load = load
        self._process: subprocess.Popen[bytes] | None = None
        self._life = -1  # the child ends when this end of a pipe closes, as at our death
        self._pipe: Connection | None = None
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._ended = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the process if there is none; it loads the networks at once."""
        self._ready()

    def run(self, job: Job, progress: Progress, tick: Callable[[], None]) -> None:
        """Analyse `job`; the report lies in `job.out` afterwards.

        `tick` is called about twice a second; what it raises ends the child and comes through.
        Raises ChildFailed, and TimeoutError after `analysis_timeout_s`; the child is gone then.
        """
        try:
            self._run(job, progress, tick)
        except (EOFError, OSError) as error:
            self.kill()
            if isinstance(error, TimeoutError):
                raise
            raise ChildFailed("the process ended unexpectedly") from error
        except BaseException:
            self.kill()
            raise

    def _run(self, job: Job, progress: Progress, tick: Callable[[], None]) -> None:
        pipe = self._ready()
        deadline = time.monotonic() + self.settings.analysis_timeout_s
        looked = 0.0
        _send(pipe, "study", str(job.source), str(job.out))
        while True:
            now = time.monotonic()
            if now >= deadline:
                raise TimeoutError(f"after {self.settings.analysis_timeout_s:g} s")
            if now - looked >= TICK_S:
                looked = now
                self._check_memory()
                tick()
            if not pipe.poll(min(TICK_S, deadline - now)):
                continue
            kind, *values = _received(pipe)
            if kind == "step":
                progress(*values)
            elif kind == "full":
                raise DiskFull("there was no space on the disk")
            elif kind == "error":
                raise ChildFailed(values[0])
            elif kind == "done":
                return

    def end(self) -> None:
        """Kill the process and start none again."""
        self._ended = True
        self.kill()

    def kill(self) -> None:
        """End the process and what it started (they share a process group)."""
        with self._lock:
            process, pipe, life = self._process, self._pipe, self._life
            self._process = self._pipe = None
            self._life = -1
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if pipe is not None:
            pipe.close()
        if life >= 0:
            os.close(life)

    def _ready(self) -> Connection:
        with self._starting:  # the prewarming thread and the first study may come at once
            process, pipe = self._process, self._pipe
            if process is not None and pipe is not None and process.poll() is None:
                return pipe
            self.kill()
            with self._lock:
                if self._ended:
                    raise EOFError("the worker ends")
                return self._spawn()

    def _spawn(self) -> Connection:
        """A fresh interpreter: a fork would share locks and threads, and our main module."""
        pipe, theirs = multiprocessing.Pipe()
        watched, life = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(watched)],
                pass_fds=(theirs.fileno(), watched),
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                start_new_session=True,  # Ctrl-C is for us alone; killpg reaches its children
            )
        except BaseException:
            pipe.close()
            os.close(life)
            raise
        finally:
            theirs.close()
            os.close(watched)
        self._process, self._pipe, self._life = process, pipe, life
        _send(pipe, "load", self.load, self.settings.model_dump(mode="json"))
        return pipe

    def _check_memory(self) -> None:
        limit, pid = self.settings.analysis_memory_bytes, self.pid
        if not limit or pid is None:
            return
        used = resident_bytes(pid)
        if used is not None and used > limit:
            raise ChildFailed(f"the process used {used >> 20} MB, allowed are {limit >> 20} MB")


def resident_bytes(pid: int) -> int | None:
    """Resident memory of a process; None where the system does not tell (other than Linux)."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def resolve(name: str) -> Callable[[Settings], Analyse]:
    """The function named "module:function"."""
    module, _, function = name.partition(":")
    found: Callable[[Settings], Analyse] = getattr(importlib.import_module(module), function)
    return found


def _send(pipe: Connection, *message: Any) -> None:
    """JSON, no pickle: the other side has touched files of unknown origin."""
    pipe.send_bytes(json.dumps(message).encode())


def _received(pipe: Connection) -> list[Any]:
    """Raises EOFError where the other side is gone, ChildFailed for what is no message."""
    try:
        message = json.loads(pipe.recv_bytes(MAX_MESSAGE))
    except ValueError as error:
        raise ChildFailed("the process said something else than expected") from error
    if not isinstance(message, list) or not message:
        raise ChildFailed("the process said something else than expected")
    return message


# ---- in the child


def main(pipe_fd: int, life_fd: int) -> None:
    """Analyse what comes through the pipe, until it closes."""
    threading.Thread(target=_end_with_parent, args=(life_fd,), daemon=True).start()
    pipe = Connection(pipe_fd)
    with suppress(EOFError, BrokenPipeError):
        _, load, values = _received(pipe)
        settings = Settings(**values)
        configure(settings)
        analyse = resolve(load)(settings)
        while True:
            _, source, out = _received(pipe)
            _send(pipe, *_answer(pipe, analyse, Path(source), Path(out)))


def _answer(pipe: Connection, analyse: Analyse, source: Path, out: Path) -> tuple[str, ...]:
    def step(stage: str, fraction: float) -> None:
        _send(pipe, "step", stage, fraction)

    try:
        analyse(source, out, step)
    except (MemoryError, BrokenPipeError):
        raise  # a fresh child may do it; with the pipe gone, nobody listens
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ("full",)
        log.exception("analysis failed")
        return "error", type(error).__name__
    return ("done",)


def _end_with_parent(life_fd: int) -> None:
    """An orphan must not write results that another worker has taken over."""
    os.read(life_fd, 1)  # nothing is ever written: it returns when the other end is gone
    with suppress(OSError):
        os.killpg(os.getpid(), signal.SIGKILL)  # our decoders, too
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
