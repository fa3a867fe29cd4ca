"""`triage explain`: a report's answers explained once more, by another method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triage.cli.common import load_settings, plain, progress_bar
from triage.saliency.names import Method
from triage.types import Target

if TYPE_CHECKING:
    from triage.settings import Settings
    from triage.types import Volume


def explain(
    report: Annotated[
        Path,
        typer.Argument(
            metavar="REPORT",
            exists=True,
            file_okay=False,
            help="Report folder that `triage run` wrote.",
        ),
    ],
    method: Annotated[Method, typer.Option("--method", help="How to explain.")],
    target: Annotated[
        list[Target] | None,
        typer.Option("--target", help="Only this target; may be repeated [all assessed]."),
    ] = None,
    series: Annotated[
        Path | None,
        typer.Option(
            "--series",
            exists=True,
            help="The images themselves, to draw on; else the copy in the report folder.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The bundle that answered [TRIAGE_MODEL]."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Explain a report's answers by another method: maps and overlays below REPORT/explain."""
    from triage.inference.networks import load_networks
    from triage.nets.bundle import BundleError, find_bundle
    from triage.saliency.again import NotExplained, explain_report

    settings = load_settings()
    try:
        nets = load_networks(find_bundle(model or settings.model), device)
    except BundleError as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error
    except RuntimeError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
    original = _reader(series, settings) if series is not None else None
    try:
        with progress_bar() as progress:
            done = explain_report(
                report, nets, method, target or (), original=original, progress=progress
            )
    except NotExplained as error:
        raise typer.BadParameter(plain(error)) from error
    out = report / "explain" / method.value
    for finding in done:
        typer.echo(f"{finding.target.value}: {plain(out / finding.overlays[0])}")


def _reader(source: Path, settings: Settings) -> Callable[[str], Volume]:
    """Reads a series of `source` by its SeriesInstanceUID."""
    from triage.dicom import decode, open_study
    from triage.imaging.volume import to_volume
    from triage.reasons import NotAnalysed
    from triage.saliency.again import NotExplained

    def read(uid: str) -> Volume:
        try:
            with open_study(source, settings) as study:
                for series in study.series:
                    if series.series_instance_uid == uid:
                        return to_volume(decode(series, settings))
        except NotAnalysed as refusal:
            raise NotExplained(refusal.line()) from refusal
        raise NotExplained(f"Expected a series {uid} in {source}, found none")

    return read
