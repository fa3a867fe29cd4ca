"""The workflow of this process: it takes studies from the durable queue and analyses them.

    records (what waits) --feed--> queue (DBOS) --> claim -> compute -> commit -> tell
                                                             warm child

The records are the truth: at start, and every second, whatever is complete and not analysed is put
on the queue, under an id made of the study and its images version; an id that is known changes
nothing. So nothing is lost, whoever dies, and nothing is analysed twice.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from triage.service.records import Database, analyses
from triage.service.records import queue as waiting
from triage.service.workflow import control, durable
from triage.service.workflow.child import LOAD
from triage.service.workflow.heartbeat import DEAD_S, PULSE_S, Watch
from triage.service.workflow.identity import Identity
from triage.service.workflow.order import WINDOW, Rank, turn
from triage.service.workflow.queue import DEAD_ENDS, POLL_S, SHAPE, Queue
from triage.service.workflow.steps import AWAY, Interrupted, Steps
from triage.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Dead workers' studies are taken over after `dead_s` + `check_s` at most."""

    poll_s: float = POLL_S
    feed_s: float = 1.0
    pulse_s: float = PULSE_S
    dead_s: float = DEAD_S
    check_s: float = 2.0
    sweep_s: float = 30.0


TIMING = Timing()


class Workflow:
    """Analyses what the records hold, from `start` to `stop`. One a process."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        load: str = LOAD,
        timing: Timing = TIMING,
        on_finished: Callable[[str, str], None] | None = None,
    ) -> None:
        """`load`: what the child runs (see `child.Child`). `on_finished(study, analysis)`: called
        after a commit, in a thread of the queue; what it raises is logged.
        """
        self.settings = settings
        self.database = database
        self.timing = timing
        self.on_finished = on_finished
        self._load = load
        self._boot = secrets.token_hex(8)
        self._watch = Watch(timing.dead_s)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._ended = False
        self._running: set[str] = set()
        self._idle = threading.Condition()
        self._put: dict[str, Rank] = {}
        self._suspects: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._problem = "not started"

    # ---- life

    def start(self) -> None:
        """Resume what was begun, and work. Raises WorkerInUseError, RuntimeError."""
        self._identity = Identity(self.settings)
        try:
            self.steps = Steps(self.settings, self.database, self.executor, self._load)
            self.steps.clean()
            self.queue = Queue(self.settings, self.executor, self.timing.poll_s)
            with self.database.session() as session:
                waiting.join(session, self.executor, self._boot, socket.gethostname(), os.getpid())
            durable.set_current(self)
            self.queue.open()
        except BaseException:
            durable.set_current(None)
            self._identity.release()
            raise
        self._problem = "ok"
        loops = {"pulse": self._pulse, "feed": self._feed_loop}
        if self.settings.prewarm:
            loops["prewarm"] = self._prewarm
        for name, target in loops.items():
            thread = threading.Thread(target=target, name=f"triage-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Take nothing more; let what runs end within `stop_grace_s`, or leave it resumable."""
        if self._ended or not self._threads:
            return
        self._ended = True
        self._stopping.set()
        self.steps.stopping.set()
        self._wake.set()
        with self._idle:
            self._idle.wait_for(lambda: not self._running, self.settings.stop_grace_s)
        self.steps.end()
        with self._idle:
            self._idle.wait_for(lambda: not self._running, 15.0)
        self.queue.close()
        for thread in self._threads:
            thread.join(timeout=10)
        durable.set_current(None)
        try:
            with self.database.session() as session:
                waiting.leave(session, self.executor, self._boot)
        except AWAY as error:  # the others notice by the missing heartbeat
            log.warning("the end could not be noted: %s", type(error).__name__)
        self._identity.release()

    @property
    def executor(self) -> str:
        """The stable name of this worker."""
        return self._identity.name

    def problem(self) -> str:
        """ "ok", or why this worker does not work: for health checks."""
        if self._stopping.is_set():
            return "stopped" if self._problem == "ok" else self._problem
        dead = [t.name for t in self._threads if not t.is_alive() and t.name != "triage-prewarm"]
        return f"a thread ended: {', '.join(dead)}" if dead else self._problem

    # ---- for others

    def on_ready(self, study_id: str, images_version: int) -> None:
        """The images of this version are complete, and the records say so."""
        self._wake.set()

    def cancel(self, study_id: str) -> bool:
        """See `control.cancel`."""
        return control.cancel(self.database, study_id)

    def again(self, study_id: str) -> bool:
        """See `control.again`."""
        done = control.again(self.database, study_id)
        self._wake.set()
        return done

    def child_pids(self) -> list[int]:
        """Processes of the warm children, for drills."""
        return [child.pid for child in self.steps.children if child.pid is not None]

    # ---- one study, called by the queue

    @contextmanager
    def under_way(self, workflow_id: str) -> Iterator[None]:
        if self._stopping.is_set():
            raise Interrupted
        with self._idle:
            self._running.add(workflow_id)
        try:
            yield
        finally:
            with self._idle:
                self._running.discard(workflow_id)
                self._idle.notify_all()
            self._wake.set()

    def tell(self, study_id: str, analysis_id: str) -> None:
        if self.on_finished is not None:
            try:
                self.on_finished(study_id, analysis_id)
            except Exception:
                log.exception("after the analysis of study %s", study_id)

    # ---- loops

    def _prewarm(self) -> None:
        for child in self.steps.children:
            with suppress(EOFError, OSError):  # it stops, or the first study says what is wrong
                child.start()

    def _pulse(self) -> None:
        while not self._stopping.wait(self.timing.pulse_s):
            try:
                with self.database.session() as session:
                    mine = waiting.pulse(session, self.executor, self._boot)
                    taken = not mine and any(
                        beat.executor == self.executor for beat in waiting.beats(session)
                    )
                    if not mine and not taken:  # somebody tidied up
                        waiting.join(
                            session, self.executor, self._boot, socket.gethostname(), os.getpid()
                        )
            except AWAY as error:
                log.warning("no heartbeat: %s", type(error).__name__)
                continue
            if taken:
                self._problem = f"another worker runs as {self.executor}: set TRIAGE_WORKER_ID"
                log.critical(self._problem)
                self.steps.stopping.set()
                self.steps.end()
                self._stopping.set()

    def _feed_loop(self) -> None:
        checked = swept = -1e9
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                now = time.monotonic()
                if now - checked >= self.timing.check_s:
                    self._take_over()
                    checked = now
                if now - swept >= self.timing.sweep_s:
                    self._sweep()
                    swept = now
                self._feed()
            except Exception as error:  # a database that is away comes back
                if not isinstance(error, AWAY):
                    log.exception("the queue could not be fed")
                else:
                    log.warning("the queue could not be fed: %s", type(error).__name__)
            self._wake.wait(self.timing.feed_s)

    def _feed(self) -> None:
        """Put the oldest waiting studies of each class on the queue."""
        workers = max(1, len(self._watch.alive())) * self.settings.worker_concurrency
        for rank, window in WINDOW.items():
            with self.database.reading() as session:
                rows = waiting.waiting(
                    session, rank is Rank.STAT, rank is Rank.COHORT, window * workers
                )
            for row in rows:
                self._enqueue(row, rank)

    def _enqueue(self, row: waiting.Waiting, rank: Rank) -> None:
        workflow_id = id_of(row.study_id, row.images_version, row.round)
        before = self._put.get(workflow_id)
        if before is rank:
            return
        place = turn(rank, datetime.now(UTC))
        arguments = (row.study_id, row.images_version, row.round)
        # Putting what is there locks its row for a moment, and a worker would pass it over.
        if self.queue.status(workflow_id) is None:
            self.queue.put(durable.analyse_study, workflow_id, place, arguments)
        elif rank is Rank.STAT:  # it may stand there as a live one, put there by any worker
            self.queue.advance(workflow_id, place)
        self._put[workflow_id] = rank

    def _take_over(self) -> None:
        """Put back what workers had begun that live no more."""
        with self.database.reading() as session:
            self._watch.look(waiting.beats(session))
        holders = set(self.queue.under_way().values()) - {self.executor}
        if dead := self._watch.dead(sorted(holders)):
            log.warning("taking over the studies of %s", ", ".join(dead))
            self.queue.release(dead)

    def _sweep(self) -> None:
        """Mend what no other way would: seen twice, so that nothing in motion is touched."""
        self._put.clear()
        if gone := self._watch.long_gone():
            with self.database.session() as session:
                waiting.forget(session, gone)
        found = {f"lost {w}": w for w, e in self.queue.under_way().items() if self._is_lost(w, e)}
        for key in found.keys() & self._suspects:
            self.queue.resume(found[key])
        ended = {f"ended {w.study_id} {w.round}": w for w in self._without_workflow()}
        for key in ended.keys() & self._suspects:
            study = ended[key]
            log.error("study %s: its workflow came to nothing, the next begins", study.study_id)
            with self.database.session() as session:
                waiting.next_round(session, study.study_id, study.round)
        self._suspects = {*found, *ended}

    def _is_lost(self, workflow_id: str, executor: str) -> bool:
        return executor == self.executor and workflow_id not in self._running

    def _without_workflow(self) -> Iterator[waiting.Waiting]:
        """Waiting or unfinished studies whose workflow has ended."""
        with self.database.reading() as session:
            rows = [
                row
                for rank in Rank
                for row in waiting.waiting(session, rank is Rank.STAT, rank is Rank.COHORT, 4)
            ]
            begun = [
                waiting.Waiting(a.study_id, a.images_version, a.round)
                for a in analyses.unfinished(session)
            ]
        for row in rows:
            if self.queue.status(id_of(*_fields(row))) in DEAD_ENDS:
                yield row
        for row in begun:
            if self.queue.status(id_of(*_fields(row))) in (None, *DEAD_ENDS):
                yield row


def _fields(row: waiting.Waiting) -> tuple[str, int, int]:
    return row.study_id, row.images_version, row.round


def id_of(study_id: str, images_version: int, round_: int) -> str:
    """The id of the workflow: one for each images version, one more each time it is asked again."""
    return f"{SHAPE}.{study_id}.{images_version}" + (f".{round_}" if round_ else "")
