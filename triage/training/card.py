"""MODEL_CARD.md, generated from measurements and never typed by hand.

Figures come from metrics.json alone; words about data and origin from the bundle's provenance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triage.decision.scores import WITHOUT_ANY
from triage.training.card_figures import (
    Json,
    beside,
    branches,
    engines,
    explanations,
    figures,
    groups,
    one_line,
    probabilities,
    table,
)
from triage.training.evaluation.real_ct import HEAD, cells
from triage.training.evaluation.wording import interval, led, number
from triage.types import DISCLAIMER

# AUC of the published system whose recipe the project follows (one MobileNetV2, ImageNet
# transfer), on real patients; goes into metrics.json as `published_auc`.
PUBLISHED_AUC = {
    "bowel": 0.84,
    "extravasation": 0.55,
    "kidney": 0.68,
    "liver": 0.34,
    "spleen": 0.55,
}
# Its accuracy at the cutoff that missed none of its own test patients; `published_accuracy` there.
PUBLISHED_ACCURACY = {
    "bowel": 0.66,
    "extravasation": 0.83,
    "kidney": 0.50,
    "liver": 0.33,
    "spleen": 0.50,
}

INTENDED = """## Intended use

Research. Adults, blunt abdominal trauma, contrast-enhanced CT of the abdomen. Bowel includes the
mesentery. It suggests a priority and never reorders a worklist. It is no medical device.
"""

SIMULATED = """Calibration and figures below are from **simulated** patients unless a section says
otherwise. Scores are therefore called scores and not probabilities, and on the images of a real
scanner no verdict rules anything out.
"""

LIMITS = """## Limits

- Nothing but adults, blunt trauma and contrast-enhanced CT of the abdomen was looked at.
- Where positives are few, the lower bound of sensitivity is low and verdicts are `uncertified`.
- Other scanners, phases and populations change scores: measure before use, with
  `triage evaluate`, and set cutoffs of your own with `triage cutoffs`.
"""


def model_card(name: str, version: str, metrics: Json, provenance: Json) -> str:
    """The card as Markdown. `metrics`: metrics.json of the bundle, with what is there of

    `cutoffs` (as cutoffs.json), `calibration {patients, healthy, positives}`, `localiser_dice`,
    `fusion`, `sequence_heads`, `engines` (agreement.json), `saliency` (saliency.json), `real`,
    `real_ct` (rows of `evaluation.real_ct`), `ablations`, `published_auc`, `published_accuracy`,
    `scored` (how patients were).
    `provenance`: of bundle.json; used are `data`, `attribution` and `commands` (lists of
    sentences), `command`, `initial_weights`, `notes`, `base` (`bundle`, `networks` from it).
    """
    cutoffs = metrics.get("cutoffs") or {}
    parts = [
        f"# Model card: {one_line(name)} {one_line(version)}\n",
        f"**{DISCLAIMER}.** This file is generated from `evaluation/metrics.json`.\n",
        SIMULATED if cutoffs.get("calibrated_on") == "simulated" else "",
        INTENDED,
        _data(provenance),
        _calibration(cutoffs, metrics.get("calibration") or {}, metrics.get("fusion") or {}),
        figures(metrics),
        groups(metrics.get("targets") or {}),
        probabilities(metrics.get("targets") or {}),
        branches(metrics.get("targets") or {}),
        _heads(metrics.get("sequence_heads") or {}),
        _localiser(metrics.get("localiser_dice") or {}),
        engines(metrics.get("engines") or {}, cutoffs),
        explanations(metrics.get("saliency") or {}),
        _real(metrics.get("real") or {}),
        _real_cts(metrics.get("real_ct") or []),
        _ablations(metrics.get("ablations") or {}),
        LIMITS,
        _reproduce(provenance),
        _attribution(provenance),
    ]
    return "\n".join(part for part in parts if part)


def _listed(title: str, sentences: Sequence[object]) -> str:
    if not sentences:
        return ""
    return f"## {title}\n\n" + "".join(f"- {one_line(s)}\n" for s in sentences)


def _data(provenance: Json) -> str:
    sentences = [*provenance.get("data", ()), *provenance.get("notes", ())]
    given = provenance.get("base") or {}
    if given:
        names = ", ".join(one_line(n) for n in given["networks"])
        sentences.append(f"From bundle {one_line(given['bundle'])}, unchanged: {names}.")
    if provenance.get("initial_weights"):
        sentences.append(f"Initial weights: {provenance['initial_weights']}.")
    return _listed("What it learned from", sentences)


def _calibration(cutoffs: Json, counted: Json, fusion: Json) -> str:
    if not cutoffs.get("targets"):
        return ""
    lines = ["## Calibration\n"]
    if counted.get("patients") is not None:
        lines.append(
            f"{counted['patients']} {one_line(cutoffs.get('calibrated_on'))} patients, "
            f"{counted.get('healthy', '-')} of them "
            f"{one_line(counted.get('healthy_means', WITHOUT_ANY))}, who trained, selected and "
            "fused nothing.\n"
        )
    rows = []
    for name, entry in cutoffs["targets"].items():
        out, inn, fit = entry["rule_out"], entry["rule_in"], entry["calibration"]
        rows.append(
            [
                name,
                str(out["positives"]),
                f"{out['cutoff']:.4g}",
                number(out["sensitivity_lower_bound"]),
                f"{inn['cutoff']:.4g}",
                f"{fit['slope']:.2f}, {fit['intercept']:.2f}",
                number(entry["prevalence"], 3),
            ]
        )
    head = ["target", "positives", "rule-out cutoff", "sensitivity at least (95 %)"]
    lines.append(table([*head, "rule-in cutoff", "slope, intercept", "prevalence"], rows))
    lines += [f"- fusion, {name}: {one_line(text)}" for name, text in fusion.items()]
    return "\n".join(lines) + ("\n" if fusion else "")


def _heads(said: Json) -> str:
    """What became of the sequence heads that were trained: target -> words."""
    if not said:
        return ""
    lines = "".join(f"- {one_line(name)}: {one_line(text)}.\n" for name, text in said.items())
    return (
        "## Sequence heads\n\nA head reads all slices of a view in their order. Both were compared "
        f"on the same patients, whom neither had seen; the better one answers.\n\n{lines}"
    )


def _localiser(dice: Json) -> str:
    if not dice:
        return ""
    cells = ", ".join(f"{organ} {number(value)}" for organ, value in dice.items())
    return f"## Localiser\n\nMean Dice on the test patients: {cells}.\n"


def _real(real: Json) -> str:
    """`metrics["real"]`: data set -> its metrics.json, or any figures by name."""
    if not real:
        return ""
    parts = ["## On real data\n"]
    for title, found in {"": real}.items() if "targets" in real else real.items():
        if title and isinstance(found, Mapping):
            parts.append(f"### {one_line(title)}\n")
        if isinstance(found, Mapping) and "targets" in found:
            data = found["data"]
            parts.append(f"{data['patients']} patients; input: {data['input']}.\n")
            parts.append(beside(found["targets"], {}, {}))
            parts += [f"{one_line(note)}\n" for note in data["notes"]]
        else:
            parts.append(_any(found, "" if isinstance(found, Mapping) else str(title)))
    return "\n".join(parts)


def _real_cts(rows: Sequence[Json]) -> str:
    """Rows of `evaluation.real_ct`, a table for each bundle that was asked."""
    if not rows:
        return ""
    parts = [
        "## Real CTs without injury\n",
        "Verdict and score of each target; nothing should be suspected. The localiser's Dice is "
        "against masks that others or region growing drew.\n",
    ]
    for bundle in dict.fromkeys(row["bundle"] for row in rows):
        own = [
            [one_line(c) for c in line] for line in cells(r for r in rows if r["bundle"] == bundle)
        ]
        parts += [f"### By {one_line(bundle)}\n", table(HEAD, own)]
    return "\n".join(parts)


def _ablations(ablations: Json) -> str:
    """`metrics["ablations"]`: name -> target -> AUC (a number, or value with its interval, and
    maybe with its `lead` over the baseline's)."""
    if not ablations:
        return ""
    names: list[str] = []
    for found in ablations.values():
        if not isinstance(found, Mapping):
            return "## Ablations\n\n" + _any(ablations)
        names += [n for n in found if n not in names]
    rows = [
        [one_line(k), *(_value(found.get(n)) + led(found.get(n)) for n in names)]
        for k, found in ablations.items()
    ]
    return f"## Ablations\n\n{_ABLATIONS}\n\n" + table(
        ["what", *(one_line(n) for n in names)], rows
    )


_ABLATIONS = (
    "AUC of held-out simulated patients in short trainings, and its lead over the first row's on"
    " the same patients, with intervals of 95 %: for comparing, not for promising."
)


def _any(found: Any, path: str = "") -> str:
    """Figures of unknown shape as a list, one a line."""
    if isinstance(found, Mapping) and not {"value", "low", "high"} <= found.keys():
        lines = [_any(v, f"{path}, {k}" if path else str(k)) for k, v in found.items()]
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    return f"- {one_line(path)}: {_value(found)}\n"


def _value(value: Any) -> str:
    if value is None or isinstance(value, Mapping):
        return interval(value)
    return f"{value:.4g}" if isinstance(value, float) else one_line(value)


def _reproduce(provenance: Json) -> str:
    commands = provenance.get("commands") or [
        provenance[k] for k in ("command",) if k in provenance
    ]
    if not commands:
        return ""
    lines = "\n".join(str(command) for command in commands)
    return (
        f"## To reproduce\n\n```\n{lines}\n```\n\nSeeds, sets and steps are in `bundle.json`; "
        "every figure above is in `evaluation/metrics.json`.\n"
    )


def _attribution(provenance: Json) -> str:
    return _listed("Licences and attribution", provenance.get("attribution", ()))
