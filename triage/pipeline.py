"""The whole way, from a folder to a report, in one screen: read `types.py` first.

open_study -> decode -> to_volume -> straightened -> to_grid -> localise -> judge_scope -> gather
  -> decide -> combine -> explain -> draw -> write_report
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai.data import MetaTensor

from triage.decision.priority import suggest_priority
from triage.decision.table import CutoffTable
from triage.decision.verdicts import OUR_FAILURES, combine, decide
from triage.dicom import decode, open_study
from triage.files import organs_name
from triage.imaging.artefacts import artefacts
from triage.imaging.measure import measure
from triage.imaging.resample import to_grid
from triage.imaging.volume import straightened, to_volume
from triage.inference.localise import localise
from triage.inference.networks import Networks, load_networks
from triage.inference.quality import check_series
from triage.inference.scope import judge_scope
from triage.inference.score import Evidence, look_at_slices, run_volume, tissue_mask, to_score
from triage.inference.tissue import tissue_hu
from triage.nets.bundle import find_bundle
from triage.reasons import NotAnalysed
from triage.results.report import refused, write_report
from triage.saliency.explain import illustrate, write_sheets
from triage.saliency.nifti import write_organs
from triage.saliency.scene import Scene
from triage.settings import Settings
from triage.settings import settings as process_settings
from triage.types import (
    TARGETS,
    Anatomy,
    Finding,
    Report,
    Scope,
    Series,
    SeriesUsed,
    Status,
    Target,
    Verdict,
    Volume,
)

Progress = Callable[[str, float], None]


@dataclass
class Analysed:
    """One analysed series with everything that its explanation needs."""

    volume: Volume
    anatomy: Anatomy
    scope: Scope
    evidence: Evidence
    findings: dict[Target, Finding]
    quality: dict[str, Any]
    grid: MetaTensor  # float32 (1, X, Y, Z) HU: the working grid
    cautions: tuple[str, ...] = ()  # warnings of the quality checks


class Clock:
    """Seconds by stage, summed over series."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def timings(self) -> dict[str, float]:
        done = {k: round(v, 3) for k, v in self.seconds.items()}
        return {**done, "total_s": round(time.monotonic() - self.began, 3)}


def analyse(
    source: Path,
    out: Path | None = None,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    settings: Settings | None = None,
    networks: Networks | None = None,
) -> Report:
    """Analyse one study: folder or zip of DICOM, or NIfTI, NRRD, MHA.

    Writes report.json, overlays and saliency maps into `out`. Input that cannot be judged gives a
    report with status not_analysed and its reason, never an exception and never a verdict.
    `networks` may be loaded beforehand and shared by many studies.
    """
    options = settings or process_settings()
    tell = progress or (lambda stage, share: None)
    try:
        report = _analyse(source, out, model, device, tell, options, networks)
    except NotAnalysed as refusal:
        report = refused(refusal.code, refusal.detail, refusal.study_instance_uid)
    if out is not None:
        write_report(report, out)
    tell("done", 1.0)
    return report


def _analyse(
    source: Path,
    out: Path | None,
    model: str | Path | None,
    device: str,
    tell: Progress,
    options: Settings,
    networks: Networks | None,
) -> Report:
    clock = Clock()
    tell("reading", 0.02)
    with clock.stage("gate_s"):
        opened = open_study(source, options)
        study = opened.__enter__()
    try:
        # One series is read ahead, while networks are loaded or look at the series before it.
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(_read, study.series[0], options)
            with clock.stage("load_s"):
                nets = networks or load_networks(find_bundle(model or options.model), device)
                table = CutoffTable.from_bundle(nets.folder)
            analysed: list[Analysed] = []
            warnings, refusals, failed = list(study.warnings), [], []
            for i, series in enumerate(study.series):
                share = (i / len(study.series), 1 / len(study.series))
                reading, rest = ahead, study.series[i + 1 :]
                try:
                    tell("decoding", 0.05 + 0.8 * share[0])
                    with clock.stage("read_s"):
                        wait([reading])
                    if rest:
                        ahead = reader.submit(_read, rest[0], options)
                    volume, quality = reading.result()
                    analysed.append(
                        _series(volume, quality, nets, table, options, clock, tell, share)
                    )
                except NotAnalysed as refusal:
                    refusals.append(refusal)
                    if refusal.code in OUR_FAILURES:  # it may show the injury: no silent negative
                        failed.append(_all_not_assessed(series, refusal.code))
                    warnings.append(f"{refusal.code}: series {series.series_instance_uid}")
    finally:
        opened.__exit__(None, None, None)
    if not analysed:
        first = refusals[0]
        first.study_instance_uid = first.study_instance_uid or study.study_instance_uid
        raise first
    findings = combine([*(a.findings for a in analysed), *failed])
    if out is not None:
        tell("overlays", 0.85)
        with clock.stage("saliency_s"), ThreadPoolExecutor(1) as writer:
            for number, a in enumerate(analysed, start=1):
                scene = Scene(out, number)
                written = writer.submit(_write_seen, a, scene, out / organs_name(number))
                own = {t: f for t, f in findings.items() if f is a.findings[t]}
                drawn = illustrate(nets, a.volume, a.anatomy, a.evidence, own, table, out, scene)
                findings.update(drawn)
                written.result()
            write_sheets(findings, out)
    return Report(
        status=Status.ANALYSED,
        study_instance_uid=study.study_instance_uid,
        series=tuple(_used(a) for a in analysed),
        bundle=nets.ref,
        priority=suggest_priority(Status.ANALYSED, findings),
        findings=findings,
        quality=[a.quality for a in analysed],
        timings=clock.timings(),
        warnings=[*warnings, *(w for a in analysed for w in _warnings(a))],
    )


def _read(series: Series, options: Settings) -> tuple[Volume, dict[str, Any]]:
    """The voxels of one series and their quality."""
    volume = to_volume(decode(series, options))
    return volume, {**measure(volume), **artefacts(volume)}


def _series(
    volume: Volume,
    quality: dict[str, Any],
    nets: Networks,
    table: CutoffTable,
    options: Settings,
    clock: Clock,
    tell: Progress,
    share: tuple[float, float],
) -> Analysed:
    """One series through localiser, networks and decision."""
    series = volume.series

    def step(name: str, part: float) -> None:
        tell(name, 0.05 + 0.8 * (share[0] + share[1] * part))

    step("resampling", 0.15)
    with clock.stage("resample_s"):
        grid = to_grid(straightened(volume))
    with clock.stage("quality_s"):
        quality, cautions = check_series(grid, quality, series.facts, options)
    step("localising", 0.25)
    with clock.stage("localise_s"):
        anatomy = localise(nets, grid)
        scope = judge_scope(grid, anatomy)
        measured = {
            "spacing_mm": [round(mm, 4) for mm in volume.spacing],
            "tissue_hu": tissue_hu(grid, anatomy),
        }
    step("slices", 0.35)
    with clock.stage("slices_s"):
        evidence = Evidence(look_at_slices(nets, grid, anatomy), tissue_mask(grid))
    step("volume", 0.85)
    with clock.stage("volume_s"):
        run_volume(nets, grid, anatomy, evidence)
    findings = {t: _finding(t, series, scope, evidence, grid, table, options) for t in TARGETS}
    named = {"series_instance_uid": series.series_instance_uid, **quality, **measured}
    return Analysed(volume, anatomy, scope, evidence, findings, named, grid, cautions)


def _finding(
    target: Target,
    series: Series,
    scope: Scope,
    evidence: Evidence,
    grid: MetaTensor,
    table: CutoffTable,
    options: Settings,
) -> Finding:
    entry = table.targets.get(target)
    if entry is None:
        uid = series.series_instance_uid
        return Finding(target, Verdict.NOT_ASSESSED, None, uid, "NOT_TRAINED")
    score = to_score(target, evidence, grid)
    reason = scope.not_assessed.get(target)
    if score is None and reason is None:
        reason = "INCOMPLETE_COVERAGE"
    logit = None
    if score is not None:
        logit = score.ensemble
        if entry.fusion is not None:
            logit = entry.fusion.apply(score.ensemble, score.volume)

    def judge(value: float | None, not_assessed: str | None) -> Finding:
        return decide(
            target,
            value,
            entry,
            calibrated_on=table.calibrated_on,
            simulated_input=series.simulated,
            min_sensitivity_bound=options.min_sensitivity_bound,
            not_assessed=not_assessed,
            series_instance_uid=series.series_instance_uid,
            side=score.side if score else None,
            grade=score.grade if score else None,
        )

    finding = judge(logit, reason)
    unseen = reason is None and target in scope.partial
    if unseen and finding.verdict is not Verdict.SUSPECTED:
        # What was seen of the organ looked normal; what was not seen may be torn.
        finding = judge(None, "INCOMPLETE_COVERAGE")
    flagged = finding.verdict is Verdict.SUSPECTED
    return finding if flagged else replace(finding, side=None, grade=None)


def _write_seen(a: Analysed, scene: Scene, organs: Path) -> None:
    """What the networks saw: the working grid and the organs."""
    scene.ct(a.grid)
    write_organs(a.anatomy.labels, a.volume, straightened(a.volume), organs)


def _all_not_assessed(series: Series, code: str) -> dict[Target, Finding]:
    uid = series.series_instance_uid
    return {t: Finding(t, Verdict.NOT_ASSESSED, None, uid, code) for t in TARGETS}


def _warnings(a: Analysed) -> list[str]:
    """Warnings about one series, each reason code once; the organs' word goes before."""
    told = set(a.scope.warnings)
    seen = [line for line in a.cautions if line.partition(":")[0] not in told]
    return [*a.scope.warnings, *seen, *a.volume.notes]


def _used(a: Analysed) -> SeriesUsed:
    series = a.volume.series
    return SeriesUsed(
        series.series_instance_uid, a.scope.phase, int(a.volume.hu.shape[3]), series.why_chosen
    )
