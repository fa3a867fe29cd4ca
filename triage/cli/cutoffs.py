"""`triage cutoffs`: cutoffs and calibration from any table of scores."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triage.cli.common import load_settings, plain, target_shares
from triage.types import Target

if TYPE_CHECKING:
    from triage.decision.score_cutoffs import ScoreCutoffs
    from triage.decision.scores import ScoreTable


class Origin(StrEnum):
    """Where the patients of a table come from."""

    REAL = "real"
    SIMULATED = "simulated"


def cutoffs(
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES.csv",
            exists=True,
            dir_okay=False,
            help="Columns patient_id, target, label, score; or RSNA 2023 predictions.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Where cutoffs.json goes.")],
    calibrated_on: Annotated[
        Origin | None,
        typer.Option("--calibrated-on", help="Real or simulated patients [simulated]."),
    ] = None,
    prevalence: Annotated[
        str,
        typer.Option("--prevalence", help="as-is, natural or TARGET=SHARE,... (calibration)."),
    ] = "as-is",
    specificity: Annotated[
        float,
        typer.Option(
            "--specificity", min=0.5, max=0.999, help="Healthy patients without any suspicion."
        ),
    ] = 0.95,
    plots: Annotated[
        Path | None,
        typer.Option("--plots", file_okay=False, help="ROC curves with both cutoffs as PNG."),
    ] = None,
) -> None:
    """Rule-out, rule-in and calibration of each target, in the scale of the scores given."""
    from triage.decision.score_cutoffs import fit_score_cutoffs
    from triage.training.evaluation.rsna_table import read_table

    if calibrated_on is None:
        typer.echo(
            "Warning: --calibrated-on was not given: the patients pass for simulated ones, so the "
            "cutoffs rule nothing out on a real scanner's images.",
            err=True,
        )
    try:
        table = read_table(scores)
        found = fit_score_cutoffs(
            table,
            calibrated_on=(calibrated_on or Origin.SIMULATED).value,
            specificity=specificity,
            prevalence=parsed_prevalence(prevalence),
        )
    except ValueError as error:
        raise typer.BadParameter(f"{plain(scores)}: {plain(error)}") from error
    bound = load_settings().min_sensitivity_bound
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(_content(found, bound), indent=2) + "\n", encoding="utf-8")
    if plots is not None:
        write_plots(plots, table, found)
    typer.echo(summary(found, bound))
    typer.echo(f"Cutoffs: {plain(out)}" + (f", plots: {plain(plots)}" if plots else ""))


def parsed_prevalence(text: str) -> dict[Target, float] | None:
    """The shares of `--prevalence`: None for as-is, those of the case plan for natural."""
    if text == "as-is":
        return None
    if text == "natural":
        from triage.training.evaluation.prevalence import natural

        return natural()
    shares = target_shares(text.split(","))
    if ends := [t.value for t, share in shares.items() if share in (0, 1)]:
        raise ValueError(f"Expected a share between 0 and 1 for {', '.join(ends)}")
    return shares


def _content(found: ScoreCutoffs, bound: float) -> dict[str, Any]:
    content = found.to_dict()
    for entry in content["targets"].values():
        out = entry["rule_out"]
        entry["certified"] = out is not None and out["sensitivity_lower_bound"] >= bound
    return content


def summary(found: ScoreCutoffs, bound: float) -> str:
    """What was found, for people."""
    lines = [
        f"{found.patients} patients ({found.calibrated_on}), {found.healthy} of them "
        f"{found.healthy_means}; scores are on the scale of a {found.scale}",
        f"{'target':<14} {'positives':>9}  {'rule-out':>10} {'sens. >=':>8}  "
        f"{'rule-in':>10} {'spec.':>6}  calibration",
    ]
    notes = list(found.notes)
    for target, entry in found.targets.items():
        o, i, c = entry.rule_out, entry.rule_in, entry.calibration
        lines.append(
            f"{target.value:<14} {entry.positives:>9}  "
            + (
                f"{o.cutoff:>10.4g} {o.sensitivity_lower_bound:>8.3f}  "
                if o
                else f"{'-':>10} {'-':>8}  "
            )
            + (f"{i.cutoff:>10.4g} {i.specificity:>6.3f}  " if i else f"{'-':>10} {'-':>6}  ")
            + (f"slope {c.slope:.3g}, intercept {c.intercept:.3g}" if c else "-")
        )
        notes += [f"{target.value}: {note}" for note in entry.notes]
        if o is not None and (o.sensitivity_lower_bound or 0) < bound:
            notes.append(
                f"{target.value}: {entry.positives} positives are too few to rule anything out "
                f"(lower bound of sensitivity below {bound:g}): uncertified"
            )
    if found.joint_specificity is not None:
        notes.append(
            f"no suspected target in {found.joint_specificity:.1%} of the patients "
            f"{found.healthy_means}"
        )
    return "\n".join([*lines, *notes])


def write_plots(folder: Path, table: ScoreTable, found: ScoreCutoffs) -> None:
    """roc_<target>.png for each target with both classes."""
    import numpy as np

    from triage.decision.auc import auc_interval
    from triage.training.evaluation.plots import png, roc_figure

    folder.mkdir(parents=True, exist_ok=True)
    for t, (target, entry) in enumerate(found.targets.items()):
        if not (entry.positives and entry.negatives):
            continue
        scores, labels = table.scores[:, t], table.labels[:, t]
        seen = ~np.isnan(scores)
        persons = [p for p, s in zip(table.persons, seen, strict=True) if s]
        figure = roc_figure(
            target.value,
            scores[seen],
            labels[seen],
            {
                "rule-out": entry.rule_out.cutoff if entry.rule_out else None,
                "rule-in": entry.rule_in.cutoff if entry.rule_in else None,
            },
            auc_interval(scores[seen], labels[seen], persons).to_dict(),
            f"Cutoffs set on these {found.calibrated_on} patients",
        )
        (folder / f"roc_{target.value}.png").write_bytes(png(figure))
