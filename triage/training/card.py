"""MODEL_CARD.md, generated from measurements and never typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triage.decision.table import CutoffTable
from triage.types import DISCLAIMER, TARGETS

# Figures of the published system whose recipe this follows: one MobileNetV2, ImageNet transfer.
PUBLISHED_AUC = {
    "bowel": 0.84,
    "extravasation": 0.55,
    "kidney": 0.68,
    "liver": 0.34,
    "spleen": 0.55,
}

HEAD = """# Model card: reference {version}

**{disclaimer}.** This file is generated from `evaluation/metrics.json`.

Everything below was measured on **simulated** patients. No figure here says how the bundle does on
real trauma patients: it was not measured on any. Scores are therefore called scores and not
probabilities, and on the images of a real scanner no verdict rules anything out.

## What it learned from

{train} simulated patients ({people} anatomies): parametric people, label maps of two real people
and two real CTs without injury as backgrounds, with simulated injuries, look-alikes, contrast
phases and scanners; {slices} of them trained the slice ensembles. No image of an injured real
patient was used.

Backgrounds: TotalSegmentator data set (anatomies s0327 and s0328, CC BY 4.0) and test files
(Apache-2.0); TCIA TCGA-COAD (CC BY 3.0). Initial weights: {weights}.

Made with `{command}`; seeds, sets and steps are in `bundle.json`.

## Calibration

{patients} simulated patients, {healthy} of them without any injury, on an anatomy that trained
nothing. They set calibration and cutoffs and nothing else.
"""


def model_card(
    version: str, metrics: Mapping[str, Any], table: CutoffTable, provenance: Mapping[str, Any]
) -> str:
    """The card of the reference bundle as Markdown."""
    calibration = metrics["calibration"]
    parts = [
        HEAD.format(
            version=version,
            disclaimer=DISCLAIMER,
            train=provenance["train_patients"],
            slices=provenance["slice_patients"],
            people=provenance["sets"]["train"]["people"],
            weights=provenance["initial_weights"],
            command=provenance["command"],
            patients=calibration["patients"],
            healthy=calibration["healthy"],
        ),
        _cutoffs(table, calibration),
        _test(metrics),
        _localiser(metrics),
        LIMITS,
    ]
    return "\n".join(parts)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}"


def _cutoffs(table: CutoffTable, calibration: Mapping[str, Any]) -> str:
    lines = [
        "| target | positives | rule-out cutoff | sensitivity at least (95 %) | rule-in cutoff |",
        "|---|---|---|---|---|",
    ]
    for target in TARGETS:
        entry = table.targets[target]
        bound = entry.rule_out.sensitivity_lower_bound or 0.0
        lines.append(
            f"| {target.value} | {calibration['positives'][target.value]} "
            f"| {entry.rule_out.cutoff:.4f} | {bound:.2f} | {entry.rule_in.cutoff:.4f} |"
        )
    return "\n".join(lines) + "\n"


def _test(metrics: Mapping[str, Any]) -> str:
    lines = [
        "## Test",
        "",
        "Simulated patients with other seeds on anatomies that trained nothing; the label map",
        "(s0011) also served calibration. AUC with its 95 % bootstrap interval; sensitivity",
        "and specificity at both cutoffs. The published AUC is of the system whose recipe this",
        "follows, on real patients: not comparable, it only shows what is to be beaten.",
        "",
        "| target | patients | positives | AUC | slices alone | volume net alone | high grade "
        "| rule-out sens / spec | rule-in sens / spec | published AUC (real) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for target in TARGETS:
        m = metrics["targets"][target.value]
        a, out, inn = m["auc"], m["rule_out"], m["rule_in"]
        lines.append(
            f"| {target.value} | {m['patients']} | {m['positives']} "
            f"| {_number(a['value'])} ({_number(a['low'])}-{_number(a['high'])}) "
            f"| {_number(m['auc_slices'])} | {_number(m['auc_volume'])} "
            f"| {_number(m['auc_high_grade'])} "
            f"| {_number(out['sensitivity'])} / {_number(out['specificity'])} "
            f"| {_number(inn['sensitivity'])} / {_number(inn['specificity'])} "
            f"| {PUBLISHED_AUC[target.value]} |"
        )
    chance = [t.value for t in TARGETS if (metrics["targets"][t.value]["auc"]["low"] or 0) <= 0.5]
    if chance:
        names = ", ".join(chance)
        lines += ["", f"**Not shown to be better than chance: {names}.** Do not use these answers."]
    return "\n".join(lines) + "\n"


def _localiser(metrics: Mapping[str, Any]) -> str:
    dice = metrics["localiser_dice"]
    cells = ", ".join(f"{organ} {value:.2f}" for organ, value in dice.items())
    return f"## Localiser\n\nMean Dice on the test patients: {cells}.\n"


LIMITS = """## Limits

- Simulated injuries are simpler than real ones; expect less on real patients, and measure it.
- Adults, blunt trauma, contrast-enhanced CT of the abdomen. Nothing else was looked at.
- Small sets: intervals are wide, and where a lower bound is below 0.90 verdicts are `uncertified`.
"""
