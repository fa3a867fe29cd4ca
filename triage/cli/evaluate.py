"""`triage evaluate`: what a bundle, or a table of scores, is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triage.cli.common import load_settings, plain, progress_bar
from triage.cli.cutoffs import parsed_prevalence

if TYPE_CHECKING:
    from triage.decision.scores import ScoreTable
    from triage.training.evaluation.judged import Judged


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            exists=True,
            help="Folder in the RSNA 2023 layout (volumes or slices only), or a CSV of scores.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="Folder for metrics, plots and page.")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Bundle; for a CSV: whose cutoffs apply to its scores."),
    ] = None,
    cutoffs: Annotated[
        Path | None,
        typer.Option(
            "--cutoffs", exists=True, dir_okay=False, help="For a CSV: what `triage cutoffs` wrote."
        ),
    ] = None,
    prevalence: Annotated[
        str, typer.Option("--prevalence", help="as-is, natural or TARGET=SHARE,...")
    ] = "as-is",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
) -> None:
    """AUC, sensitivity and specificity at both cutoffs, calibration, plots and a page."""
    if model is not None and cutoffs is not None:
        raise typer.BadParameter("--model and --cutoffs exclude each other")
    if data.is_dir() and cutoffs is not None:
        raise typer.BadParameter("--cutoffs is for a CSV of scores; give --model for a folder")
    try:
        shares = parsed_prevalence(prevalence)
        if data.is_dir():
            folder = _bundle(model or load_settings().model)
            table = _score(data, folder, device, out)
            judged, extra = _with_bundle(table, folder)
        else:
            from triage.training.evaluation.rsna_table import read_table

            table = read_table(data)
            if model is not None:
                judged, extra = _with_bundle(table, _bundle(model))
            else:
                judged, extra = _with_cutoffs(table, cutoffs)
        extra["source"] = {"data": data.name, "prevalence": prevalence}
        from triage.training.evaluation.write import write_evaluation

        metrics = write_evaluation(out, judged, shares, extra)
    except ValueError as error:
        raise typer.BadParameter(f"{plain(data)}: {plain(error)}") from error
    typer.echo(summary(metrics))
    typer.echo(f"Metrics: {plain(out / 'metrics.json')}, page: {plain(out / 'index.html')}")


def _bundle(name: str) -> Path:
    from triage.nets.bundle import BundleError, find_bundle

    try:
        return find_bundle(name)
    except BundleError as error:
        raise typer.BadParameter(plain(error)) from error


def _score(data: Path, folder: Path, device: str, out: Path) -> ScoreTable:
    """Every patient of the folder through the bundle's networks.

    Scores are kept in `out`, named after bundle and data: an interrupted run goes on from there.
    """
    from triage.decision.scores import from_rows
    from triage.inference.networks import load_networks
    from triage.nets.bundle import BundleError, manifest_sha256
    from triage.training.scoring import score_data

    try:
        nets = load_networks(folder, device)
    except BundleError as error:
        raise typer.BadParameter(plain(error)) from error
    key = sha256(f"{manifest_sha256(folder)} {data.resolve()}".encode()).hexdigest()
    kept = out / f"scores_{key[:12]}.csv"
    with progress_bar() as bar:
        rows = score_data(data, nets, out=kept, progress=bar)
    if not rows:
        raise typer.BadParameter(f"{plain(data)}: no patient could be scored")
    return from_rows(rows)


def _with_bundle(table: ScoreTable, folder: Path) -> tuple[Judged, dict[str, Any]]:
    from triage.decision.table import CutoffTable
    from triage.nets.bundle import BundleError, read_manifest, reference
    from triage.training.evaluation.judged import judge_with_bundle
    from triage.training.folds import trained_before, warning

    try:
        fitted, ref = CutoffTable.from_bundle(folder), reference(folder)
        trained = trained_before(folder, read_manifest(folder))
    except BundleError as error:
        raise typer.BadParameter(plain(error)) from error
    if note := warning(set(table.persons), trained):
        table = replace(table, notes=(*table.notes, note))
    bundle = {
        "name": ref.name,
        "version": ref.version,
        "sha256": ref.sha256,
        "calibrated_on": ref.calibrated_on,
    }
    return judge_with_bundle(table, fitted), {"bundle": bundle, "cutoffs": fitted.to_dict()}


def _with_cutoffs(table: ScoreTable, path: Path | None) -> tuple[Judged, dict[str, Any]]:
    from triage.training.evaluation.judged import judge_scores

    if path is None:
        return judge_scores(table), {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"Expected an object in {path.name}")
    return judge_scores(table, content), {"cutoffs": content}


def summary(metrics: dict[str, Any]) -> str:
    """The figures that people ask for first."""
    from triage.training.evaluation.wording import by_chance, interval, percents, unsuspected

    lines = [f"{'target':<14} {'injured':>12}  {'AUC (95 %)':<18} rule-out sens., rule-in spec."]
    for name, found in metrics["targets"].items():
        count = f"{found['positives']} of {found['patients']}"
        out, inn = found["rule_out"] or {}, found["rule_in"] or {}
        lines.append(
            f"{name:<14} {count:>12}  {interval(found['auc']):<18} "
            f"{percents(out.get('sensitivity'))}, {percents(inn.get('specificity'))}"
        )
    if metrics["joint"]:
        lines.append(unsuspected(metrics["joint"]))
    rsna = metrics["rsna"]
    if rsna["score"] is not None:
        lines.append(
            f"RSNA 2023 metric {rsna['score']:.4f} (constant guess {rsna['constant_guess']:.4f})"
        )
    chance = by_chance(metrics["targets"])
    if chance:
        lines.append(f"Not shown to be better than chance: {', '.join(chance)}.")
    return "\n".join([*lines, *metrics["data"]["notes"]])
