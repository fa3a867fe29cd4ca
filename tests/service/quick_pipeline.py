"""A quick analysis for tests of everything around it: reads headers, says what they ask for.

PatientComments of a slice may hold a verdict; `slow`, `crash`, `crash once` and `error`
misbehave.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pydicom

from triage.results.report import write_report
from triage.service.workflow.child import Analyse, Progress
from triage.settings import Settings
from triage.types import (
    TARGETS,
    BundleRef,
    Cutoff,
    Finding,
    Phase,
    Priority,
    Report,
    SeriesUsed,
    Status,
    Target,
    Verdict,
)

LOAD = "quick_pipeline:load"
PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
PROBABILITY = {Verdict.SUSPECTED: 0.9, Verdict.NOT_EXCLUDED: 0.3, Verdict.NO_FINDING: 0.01}


def load(settings: Settings) -> Analyse:
    """See `triage.service.workflow.child`."""
    return run


def run(source: Path, out: Path, progress: Progress) -> None:
    slices = [pydicom.dcmread(p, stop_before_pixels=True) for p in sorted(source.iterdir())]
    order = str(slices[0].get("PatientComments", "no_finding"))
    progress("reading", 0.1)
    if order == "slow":
        for step in range(600):
            progress("slices", step / 600)
            time.sleep(0.1)
    if order == "crash" or (order == "crash once" and _first(out)):
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "error":
        raise ValueError(f"no analysis of {slices[0].PatientName}")
    verdict = Verdict(order) if order in set(Verdict) else Verdict.NO_FINDING
    write_report(report(slices[0], len(slices), verdict), out)
    (out / "overlays").mkdir()
    (out / "overlays" / "liver_1.png").write_bytes(PNG)
    (out / "saliency_liver.nii.gz").write_bytes(b"map")


def _first(out: Path) -> bool:
    mark = out.parent / "tried"
    there = mark.exists()
    mark.touch()
    return not there


def report(first: pydicom.Dataset, slices: int, verdict: Verdict) -> Report:
    """A sound report that says `verdict` of the liver and nothing of the rest."""
    rule_out, rule_in = Cutoff(0.1, 0.95, 59), Cutoff(0.5, specificity=0.95)
    series = str(first.SeriesInstanceUID)
    others = Verdict.NO_FINDING
    findings = {
        target: Finding(
            target,
            verdict if target is Target.LIVER else others,
            PROBABILITY[verdict if target is Target.LIVER else others],
            series,
            rule_out=rule_out,
            rule_in=rule_in,
            overlays=("overlays/liver_1.png",) if target is Target.LIVER else (),
            saliency="saliency_liver.nii.gz" if target is Target.LIVER else None,
        )
        for target in TARGETS
    }
    return Report(
        Status.ANALYSED,
        str(first.StudyInstanceUID),
        series=(SeriesUsed(series, Phase.PORTAL_VENOUS, slices, "the only one"),),
        bundle=BundleRef("quick", "1", "0" * 64, "simulated"),
        priority=Priority.STAT if verdict is Verdict.SUSPECTED else Priority.ROUTINE,
        findings=findings,
        timings={"read_s": 0.1, "total_s": 0.2},
    )
