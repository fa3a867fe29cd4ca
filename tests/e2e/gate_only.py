"""An analysis for tests that need the gate and no networks: what passes the gate is `analysed`."""

from __future__ import annotations

import os
from pathlib import Path

import pydicom
from quick_pipeline import report

from tests.fuzz.warm import Warm
from triage.dicom import child, decode, open_study
from triage.reasons import NotAnalysed
from triage.results.report import refused, write_report
from triage.service.workflow.child import Analyse, Progress
from triage.settings import Settings
from triage.types import Verdict

LOAD = "tests.e2e.gate_only:load"


def load(settings: Settings) -> Analyse:
    """See `triage.service.workflow.child`. Readers are forks of a warm process."""
    if not os.environ.get("TRIAGE_COLD_READERS"):
        child.run = Warm().run

    def run(source: Path, out: Path, progress: Progress) -> None:
        """The gate as `triage.pipeline.analyse` asks it."""
        progress("reading", 0.1)
        try:
            slices = _read(source, settings)
        except NotAnalysed as refusal:
            why = refused(refusal.code, refusal.detail, refusal.study_instance_uid)
            write_report(why, out)
            return
        first = pydicom.dcmread(sorted(source.iterdir())[0], stop_before_pixels=True)
        write_report(report(first, slices, Verdict.NO_FINDING), out)

    return run


def _read(source: Path, settings: Settings) -> int:
    """Slices of the series that can be read; raises NotAnalysed where there is none."""
    refusals, found = [], []
    with open_study(source, settings) as study:
        for series in study.series:
            try:
                found.append(decode(series, settings).hu.shape[2])
            except NotAnalysed as refusal:
                refusals.append(refusal)
    if not found:
        raise refusals[0]
    return int(max(found))
