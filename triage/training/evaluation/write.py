"""metrics.json, the plots and the page of one evaluation, in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from triage.training.evaluation.judged import Judged
from triage.training.evaluation.measure import measure
from triage.training.evaluation.page import page


def write_evaluation(
    out: Path,
    judged: Judged,
    prevalence: Mapping[Any, float] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes metrics.json, <kind>_<target>.png and index.html into `out`; returns the metrics.

    `extra`: further entries of metrics.json (`bundle`, `cutoffs`, where the data came from).
    """
    metrics = {**measure(judged, prevalence), **(extra or {})}
    drawn = figures(judged, metrics)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=2, allow_nan=False)
    (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    for target, kinds in drawn.items():
        for kind, content in kinds.items():
            (out / f"{kind}_{target}.png").write_bytes(content)
    (out / "index.html").write_text(page(metrics, drawn), encoding="utf-8")
    return metrics


def figures(judged: Judged, metrics: Mapping[str, Any]) -> dict[str, dict[str, bytes]]:
    """PNG of every figure: target -> roc, calibration, decision (where there is one)."""
    from triage.training.evaluation import plots

    labels = judged.table.labels
    out: dict[str, dict[str, bytes]] = {}
    for t, target in enumerate(judged.targets):
        found, name = metrics["targets"][target.value], target.value
        use = ~np.isnan(labels[:, t]) & ~np.isnan(judged.scores[:, t])
        drawn: dict[str, bytes] = {}
        note = judged.input[0].upper() + judged.input[1:]
        if found["auc"]["value"] is not None:
            cutoffs = {"rule-out": judged.rule_out[t], "rule-in": judged.rule_in[t]}
            drawn["roc"] = plots.png(
                plots.roc_figure(
                    name, judged.scores[use, t], labels[use, t], cutoffs, found["auc"], note
                )
            )
        if found["reliability"]:
            drawn["calibration"] = plots.png(
                plots.calibration_figure(name, found["reliability"], found["calibration"], note)
            )
        if found["decision_curve"]:
            drawn["decision"] = plots.png(
                plots.decision_figure(name, found["decision_curve"], note)
            )
        out[name] = drawn
    return out
