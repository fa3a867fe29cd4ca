"""`triage worker`: a process that only analyses, beside `triage serve` or on another machine."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable

from triage.service.records import Database
from triage.service.workflow.child import LOAD
from triage.service.workflow.workflow import TIMING, Timing, Workflow
from triage.settings import Settings

log = logging.getLogger(__name__)
LOOK_S = 1.0


def run(
    settings: Settings,
    *,
    load: str = LOAD,
    timing: Timing = TIMING,
    started: Callable[[str], None] = lambda executor: None,
) -> str:
    """Work until SIGTERM or SIGINT; returns "stopped", or what ended the work.

    `started(executor)` is called once the worker takes studies.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    database = Database.at_home(settings.home, settings.database_url)
    database.upgrade()
    workflow = Workflow(settings, database, load=load, timing=timing)
    workflow.start()
    try:
        started(workflow.executor)
        while not ended.wait(LOOK_S):
            if (problem := workflow.problem()) != "ok":
                return problem
        return "stopped"
    finally:
        workflow.stop()
        database.close()
