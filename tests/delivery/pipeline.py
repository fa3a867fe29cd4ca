"""An analysis for tests of what follows it: real reading, no networks, lesion where HU are high."""

from __future__ import annotations

from pathlib import Path

from tests.results.dicom.folders import report_of
from triage.reasons import NotAnalysed
from triage.results.report import refused, write_report
from triage.service.workflow.child import Analyse, Progress
from triage.settings import Settings

LOAD = "tests.delivery.pipeline:load"
WITH_PICTURES = "tests.delivery.pipeline:load_with_pictures"


def load(settings: Settings) -> Analyse:
    """See `triage.service.workflow.child`."""
    return run


def load_with_pictures(settings: Settings) -> Analyse:
    """As `load`, with overlays: slower."""
    return lambda source, out, progress: run(source, out, progress, pictures=True)


def run(source: Path, out: Path, progress: Progress, pictures: bool = False) -> None:
    progress("reading", 0.1)
    try:
        report_of(source, out, pictures)
    except NotAnalysed as refusal:
        write_report(refused(refusal.code, refusal.detail, refusal.study_instance_uid), out)
