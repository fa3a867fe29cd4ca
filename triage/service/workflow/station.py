"""Cohorts without `triage serve`: the way in and the workflow, no receiver and no HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from triage.service.images.files import Files
from triage.service.intake.service import Intake
from triage.service.records import Database
from triage.service.workflow.child import LOAD
from triage.service.workflow.cohort import Taker
from triage.service.workflow.workflow import TIMING, Timing, Workflow
from triage.settings import Settings


@contextmanager
def station(
    settings: Settings, database: Database, *, load: str = LOAD, timing: Timing = TIMING
) -> Iterator[Workflow]:
    """Takes and analyses cohorts while it is open; what is left goes on with the next one.

    Raises HomeInUseError where a service owns the home: it does the work then.
    """
    files = Files(settings.home, settings.max_instance_bytes)
    files.open()
    with ExitStack() as stack:
        stack.callback(files.close)
        files.sweep(database)
        workflow = Workflow(settings, database, load=load, timing=timing)
        workflow.start()
        stack.callback(workflow.stop)
        intake = Intake(settings, database, files, workflow.on_ready)  # its receiver stays closed
        for part in (intake.completeness, intake.acceptor, Taker(intake)):
            part.start()
            stack.callback(part.stop)
        yield workflow
