"""The durable workflow, as DBOS knows it: functions by name, one set a process.

Names and order of the steps belong to `queue.SHAPE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbos import DBOS

from triage.service.workflow.steps import Interrupted, Outcome

if TYPE_CHECKING:
    from triage.service.workflow.workflow import Workflow

_current: Workflow | None = None


def set_current(workflow: Workflow | None) -> None:
    """The workflow whose steps run in this process from now on."""
    global _current  # noqa: PLW0603
    _current = workflow


def _here() -> Workflow:
    if _current is None:
        raise Interrupted
    return _current


@DBOS.step(name="claim")
def claim(study_id: str, images_version: int, round_: int) -> str | None:
    return _here().steps.claim(study_id, images_version, round_)


@DBOS.step(name="compute")
def compute(analysis_id: str) -> Outcome | None:
    return _here().steps.compute(analysis_id)


@DBOS.step(name="commit")
def commit(analysis_id: str, outcome: Outcome) -> str | None:
    return _here().steps.commit(analysis_id, outcome)


@DBOS.step(name="tell")
def tell(study_id: str, analysis_id: str) -> None:
    _here().tell(study_id, analysis_id)


@DBOS.workflow(name="analyse_study")
def analyse_study(study_id: str, images_version: int, round_: int) -> str | None:
    """The steps of one images version; returns the study's status, None if it was overtaken."""
    with _here().under_way(str(DBOS.workflow_id)):
        analysis_id = claim(study_id, images_version, round_)
        outcome = compute(analysis_id) if analysis_id is not None else None
        if analysis_id is None or outcome is None:
            return None
        status = commit(analysis_id, outcome)
        tell(study_id, analysis_id)
        return status
