"""One background worker: a thread that hands studies to a child process, one after the other.

The child may crash, hang or run out of memory: the study is tried once more and then refused with
its reason; the service lives on. The child stays, so that the networks are loaded once.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from triage.service.store import Store
from triage.settings import Settings

if TYPE_CHECKING:
    from triage.inference.networks import Networks

log = logging.getLogger(__name__)
TRIES = 2


class Worker:
    """Analyses the studies of `store` in the order of `submit`."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._loop, name="triage-worker", daemon=True)
        self._child: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._starting = threading.Lock()
        self._stopping = False

    def start(self) -> None:
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End now; a study under way is refused at the next start."""
        atexit.unregister(self.stop)
        self._stopping = True
        self._queue.put(None)
        self._kill()
        self._thread.join(timeout=10)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, study: str) -> None:
        self._queue.put(study)

    def _loop(self) -> None:
        while (study := self._queue.get()) is not None and not self._stopping:
            try:
                self._analyse(study)
            except Exception:  # full disk, for one: the next study may fare better
                log.exception("study %s could not be finished", study)
                with suppress(Exception):
                    self.store.finish(study, "WORKER_FAILED")

    def _analyse(self, study: str) -> None:
        failure, detail = "WORKER_FAILED", ""
        for attempt in range(1, TRIES + 1):
            self.store.start(study)
            try:
                error = self._in_child(study)
            except TimeoutError:  # an OSError, too
                failure, detail = "TIMED_OUT", f"after {self.settings.analysis_timeout_s:g} s"
                self._kill()
                break
            except (EOFError, OSError):
                failure, detail = "WORKER_FAILED", f"the process ended {attempt} times"
            else:
                self.store.finish(study, "WORKER_FAILED" if error else None, error or "")
                return
            self._kill()
            if self._stopping:
                return  # the study stays unfinished; the next start refuses it
        self.store.finish(study, failure, detail)

    def _in_child(self, study: str) -> str | None:
        """Analyse in the child; returns the name of an error, None if a report was written.

        Raises EOFError or OSError when the child died, TimeoutError when it takes too long.
        """
        pipe = self._ready_pipe()
        deadline = time.monotonic() + self.settings.analysis_timeout_s
        pipe.send((self.store.upload(study), self.store.report_folder(study)))
        while True:
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            kind, *values = pipe.recv()
            if kind == "step":
                self.store.step(study, *values)
            else:
                return values[0] if kind == "error" else None

    def _ready_pipe(self) -> Connection:
        if self._pipe is not None and self._child is not None and self._child.is_alive():
            return self._pipe
        self._kill()
        with self._starting:
            if self._stopping:
                raise EOFError
            context = multiprocessing.get_context("spawn")
            pipe, theirs = context.Pipe()
            # Not a daemon: the pipeline decodes pixels in children of its own.
            child = context.Process(target=_child, args=(theirs, self.settings), daemon=False)
            child.start()
            theirs.close()
            self._child, self._pipe = child, pipe
        return pipe

    def _kill(self) -> None:
        """End the child and what it started (they share a process group)."""
        with self._starting:
            child, pipe = self._child, self._pipe
            self._child = self._pipe = None
        if child is not None and child.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.kill()  # where it has no group of its own yet
            child.join(timeout=10)
        if pipe is not None:
            pipe.close()


def _child(pipe: Connection, settings: Settings) -> None:
    """Runs in the child: analyse what comes through the pipe, until it closes."""
    os.setsid()  # a group of our own: Ctrl-C goes to the service, killpg reaches our children
    threading.Thread(target=_end_with_parent, daemon=True).start()
    networks = None
    while True:
        try:
            source, out = pipe.recv()
        except EOFError:
            return
        networks = networks or _load_networks(settings)
        pipe.send(_answer(pipe, source, out, settings, networks))


def _load_networks(settings: Settings) -> Networks | None:
    """The bundle's networks; None if it cannot be used: `analyse` then says why."""
    from triage.inference.networks import load_networks
    from triage.nets.bundle import BundleError, find_bundle

    try:
        return load_networks(find_bundle(settings.model), settings.device)
    except (BundleError, RuntimeError):  # RuntimeError: no such device
        return None


def _answer(
    pipe: Connection, source: Path, out: Path, settings: Settings, networks: Networks | None
) -> tuple[str, ...]:
    from triage.pipeline import analyse

    def step(stage: str, fraction: float) -> None:
        pipe.send(("step", stage, fraction))

    try:
        analyse(
            source,
            out,
            model=settings.model,
            device=settings.device,
            progress=step,
            settings=settings,
            networks=networks,
        )
    except (MemoryError, BrokenPipeError):
        raise  # a fresh child may do it; with the pipe gone, nobody listens
    except Exception as error:
        log.exception("analysis failed")
        return "error", type(error).__name__
    return ("done",)


def _end_with_parent() -> None:
    """An orphan must not write reports into a folder that another service took over."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
