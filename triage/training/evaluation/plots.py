"""ROC, calibration and decision curves as PNG: one figure a target, one look.

matplotlib's `Figure` alone: no pyplot, so no window system and no global state.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from triage.training.evaluation.wording import interval
from triage.types import DISCLAIMER

Floats = NDArray[np.float64]
INK, GREY, BLUE, RED = "#1b2a38", "#8a949e", "#1f5f99", "#b5332b"
SIDE = 4.3  # inches
DPI = 160


def png(figure: Figure) -> bytes:
    """The figure as PNG, without a date or a program name inside."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def roc_points(scores: Floats, labels: Floats) -> tuple[Floats, Floats, Floats]:
    """(false positive rate, sensitivity, threshold) for every "score >= threshold", from (0, 0)."""
    thresholds = np.unique(scores)[::-1]
    positive, negative = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    tpr = 1 - np.searchsorted(positive, thresholds, side="left") / max(len(positive), 1)
    fpr = 1 - np.searchsorted(negative, thresholds, side="left") / max(len(negative), 1)
    return (
        np.concatenate([[0.0], fpr]),
        np.concatenate([[0.0], tpr]),
        np.concatenate([[np.inf], thresholds]),
    )


def roc_figure(
    name: str,
    scores: Floats,
    labels: Floats,
    cutoffs: Mapping[str, float | None],
    auc: Mapping[str, float | None] | None = None,
    note: str = "",
) -> Figure:
    """ROC curve with the cutoffs marked; `cutoffs`: "rule-out" and "rule-in" (None: there is none).

    The text beside a mark says cutoff, sensitivity and specificity on these patients.
    """
    positives = int((labels == 1).sum())
    figure, axes = _axes(f"{name.capitalize()}: ROC", note)
    fpr, tpr, _ = roc_points(scores, labels)
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=(0, (4, 3)))
    text = None
    if auc is not None and auc.get("value") is not None:
        text = f"AUC {interval(auc, 3)}"
    axes.plot(fpr, tpr, color=INK, lw=1.6, label=text)
    marks = (("rule-out", "o", BLUE), ("rule-in", "^", RED))
    for label, marker, colour in marks:
        cutoff = cutoffs.get(label)
        if cutoff is None or math.isnan(cutoff):
            continue
        flagged = scores >= cutoff
        hits, false = int(flagged[labels == 1].sum()), int(flagged[labels == 0].sum())
        x, y = false / max(len(labels) - positives, 1), hits / max(positives, 1)
        text = f"{label} {cutoff:.3g}: sens. {hits}/{positives}, spec. {1 - x:.1%}"
        axes.plot([x], [y], marker, color=colour, ms=8, mec="white", mew=1, ls="", label=text)
    _legend(axes, f"{positives} of {len(labels)} patients injured")
    axes.set(xlabel="1 - specificity", ylabel="Sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def calibration_figure(
    name: str,
    groups: Sequence[Mapping[str, Any]],
    fit: Mapping[str, Any] | None,
    note: str = "",
) -> Figure:
    """Observed against predicted share in groups of patients (`probabilities.reliability`)."""
    figure, axes = _axes(f"{name.capitalize()}: calibration", note)
    x = np.array([g["predicted"] for g in groups], dtype=np.float64)
    y, low, high = (
        np.array([g["observed"][k] for g in groups], dtype=np.float64)
        for k in ("value", "low", "high")
    )
    top = min(1.0, 1.12 * float(max(x.max(), high.max())))
    axes.plot([0, top], [0, top], color=GREY, lw=0.8, ls=(0, (4, 3)), label="perfect")
    axes.errorbar(
        x,
        y,
        yerr=[y - low, high - y],
        fmt="o",
        color=BLUE,
        ecolor="#9dbbd6",
        elinewidth=1.4,
        ms=5,
        label="groups of equal size, 95 % interval",
    )
    title = None
    if fit is not None and fit["slope"]["value"] is not None:
        title = f"slope {interval(fit['slope'])}"
    _legend(axes, title)
    axes.set(
        xlabel="Predicted probability",
        ylabel="Observed share of injured",
        xlim=(-0.02 * top, top),
        ylim=(-0.02 * top, top),
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(PercentFormatter(1.0))
    return figure


def decision_figure(name: str, curve: Mapping[str, Sequence[float]], note: str = "") -> Figure:
    """Net benefit over the threshold probability, beside flagging everybody and nobody."""
    figure, axes = _axes(f"{name.capitalize()}: decision curve", note)
    t = np.array(curve["thresholds"])
    model, everybody = (1000 * np.array(curve[k]) for k in ("model", "all"))
    top = max(float(model.max()), float(everybody.max()), 1.0)
    axes.axhline(0, color=INK, lw=0.8, label="flag nobody")
    axes.plot(t, everybody, color=GREY, lw=1.2, ls=(0, (4, 3)), label="flag everybody")
    axes.plot(t, model, color=BLUE, lw=1.8, label="flag by the model")
    axes.set(
        xlabel="Threshold probability",
        ylabel="Net benefit per 1,000 patients",
        xlim=(0, float(t.max())),
        ylim=(-0.25 * top, 1.15 * top),
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    return figure


def _legend(axes: Axes, title: str | None) -> None:
    axes.legend(
        title=title,
        title_fontsize=8,
        alignment="left",
        loc="lower right",
        framealpha=0.95,
        edgecolor="#d5dade",
        fontsize=8,
    )


def _axes(title: str, note: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIDE, SIDE + 0.35), facecolor="white")
    axes = figure.add_axes((0.16, 0.15, 0.80, 0.74))  # square, and the same in every figure
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.grid(color="#e6e9ec", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    text = ". ".join(part for part in (note, DISCLAIMER) if part)
    figure.text(0.02, 0.015, text, fontsize=6.5, color=GREY)
    return figure, axes
