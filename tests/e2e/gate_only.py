"""An analysis for tests that need the gate and no injury networks: what passes is `analysed`.

The report's `quality` names the sha256 of each series' voxels and places, so that a test can tell
whether a study is the one that was sent.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
from quick_pipeline import report

from tests.fuzz.warm import Warm
from triage.dicom import child, decode, open_study
from triage.reasons import NotAnalysed
from triage.results.report import refused, write_report
from triage.service.workflow.child import Analyse, Progress
from triage.settings import Settings
from triage.types import Report, Stack, Verdict

LOAD = "tests.e2e.gate_only:load"
LOAD_WITH_SCOPE = "tests.e2e.gate_only:load_with_scope"
Look = Callable[[Stack], None]  # raises NotAnalysed


@dataclass
class Read:
    """What the gate lets through of one study."""

    study_uid: str
    stacks: list[Stack] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load(settings: Settings) -> Analyse:
    """See `triage.service.workflow.child`. Readers are forks of a warm process."""
    return _analysis(settings, lambda stack: None)


def load_with_scope(settings: Settings) -> Analyse:
    """As `load`; what passes the gate is also looked at by the quality checks and the localiser,
    which say whether it is an abdomen at all."""
    from triage.inference.networks import load_networks
    from triage.nets.bundle import find_bundle

    networks = load_networks(find_bundle(settings.model), "cpu")
    passed: set[str] = set()  # the same voxels give the same answer

    def look(stack: Stack) -> None:
        """As `triage.pipeline._series` begins."""
        if (same := digest(stack)) in passed:
            return
        from triage.imaging.artefacts import artefacts
        from triage.imaging.measure import measure
        from triage.imaging.resample import to_grid
        from triage.imaging.volume import straightened, to_volume
        from triage.inference.localise import localise
        from triage.inference.quality import check_series
        from triage.inference.scope import judge_scope

        volume = to_volume(stack)
        grid = to_grid(straightened(volume))
        measured = {**measure(volume), **artefacts(volume)}
        check_series(grid, measured, volume.series.facts, settings)
        judge_scope(grid, localise(networks, grid))
        passed.add(same)

    return _analysis(settings, look)


def _analysis(settings: Settings, look: Look) -> Analyse:
    if not os.environ.get("TRIAGE_COLD_READERS"):
        child.run = Warm().run

    def run(source: Path, out: Path, progress: Progress) -> None:
        progress("reading", 0.1)
        try:
            found = read(source, settings, look)
        except NotAnalysed as refusal:
            why = refused(refusal.code, refusal.detail, refusal.study_instance_uid)
            write_report(why, out)
            return
        write_report(_report(found), out)

    return run


def read(source: Path, settings: Settings, look: Look = lambda stack: None) -> Read:
    """The gate as `triage.pipeline.analyse` asks it; raises NotAnalysed if no series is left."""
    refusals = []
    with open_study(source, settings) as study:
        found = Read(str(study.study_instance_uid), warnings=list(study.warnings))
        for series in study.series:
            try:
                stack = decode(series, settings)
                look(stack)
            except NotAnalysed as refusal:
                refusals.append(refusal)
                found.warnings.append(f"{refusal.code}: series {series.series_instance_uid}")
            else:
                found.stacks.append(stack)
                found.warnings += stack.notes
    if not found.stacks:
        raise refusals[0]
    return found


def digest(stack: Stack) -> str:
    """Of its HU and of where they lie (0.01 mm)."""
    places = np.round(stack.affine, 2) + 0.0  # no negative zeros
    values = np.ascontiguousarray(stack.hu).tobytes()
    return hashlib.sha256(repr(stack.hu.shape).encode() + places.tobytes() + values).hexdigest()


def _report(found: Read) -> Report:
    stack = max(found.stacks, key=lambda one: one.hu.shape[2])
    named = pydicom.Dataset()
    named.StudyInstanceUID = found.study_uid
    named.SeriesInstanceUID = stack.series.series_instance_uid
    said = report(named, int(stack.hu.shape[2]), Verdict.NO_FINDING)
    quality = [{"hu_sha256": digest(one)} for one in found.stacks]
    return replace(said, quality=quality, warnings=found.warnings)
