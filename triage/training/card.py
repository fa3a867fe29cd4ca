"""MODEL_CARD.md, generated from measurements and never typed by hand.

Figures come from metrics.json alone; words about data and origin from the bundle's provenance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from triage.decision.scores import WITHOUT_ANY
from triage.training.evaluation.wording import (
    GROUPS,
    UNITS,
    bin_name,
    by_chance,
    interval,
    lead,
    number,
    percents,
    unsuspected,
)
from triage.types import DISCLAIMER

Json = Mapping[str, Any]

# AUC of the published system whose recipe the project follows (one MobileNetV2, ImageNet
# transfer), on real patients; goes into metrics.json as `published_auc`.
PUBLISHED_AUC = {
    "bowel": 0.84,
    "extravasation": 0.55,
    "kidney": 0.68,
    "liver": 0.34,
    "spleen": 0.55,
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
    `fusion`, `sequence_heads`, `real`, `ablations`, `published_auc`, `scored` (how patients were).
    `provenance`: of bundle.json; used are `data`, `attribution` and `commands` (lists of
    sentences), `command`, `initial_weights`, `notes`.
    """
    cutoffs = metrics.get("cutoffs") or {}
    parts = [
        f"# Model card: {_text(name)} {_text(version)}\n",
        f"**{DISCLAIMER}.** This file is generated from `evaluation/metrics.json`.\n",
        SIMULATED if cutoffs.get("calibrated_on") == "simulated" else "",
        INTENDED,
        _data(provenance),
        _calibration(cutoffs, metrics.get("calibration") or {}, metrics.get("fusion") or {}),
        _figures(metrics),
        _groups(metrics.get("targets") or {}),
        _probabilities(metrics.get("targets") or {}),
        _branches(metrics.get("targets") or {}),
        _heads(metrics.get("sequence_heads") or {}),
        _localiser(metrics.get("localiser_dice") or {}),
        _real(metrics.get("real") or {}),
        _ablations(metrics.get("ablations") or {}),
        LIMITS,
        _reproduce(provenance),
        _attribution(provenance),
    ]
    return "\n".join(part for part in parts if part)


def _text(value: object) -> str:
    """Text from a manifest on one line, without the signs that would end a table cell."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _listed(title: str, sentences: Sequence[object]) -> str:
    if not sentences:
        return ""
    return f"## {title}\n\n" + "".join(f"- {_text(s)}\n" for s in sentences)


def _data(provenance: Json) -> str:
    sentences = [*provenance.get("data", ()), *provenance.get("notes", ())]
    if provenance.get("initial_weights"):
        sentences.append(f"Initial weights: {provenance['initial_weights']}.")
    return _listed("What it learned from", sentences)


def _calibration(cutoffs: Json, counted: Json, fusion: Json) -> str:
    if not cutoffs.get("targets"):
        return ""
    lines = ["## Calibration\n"]
    if counted.get("patients") is not None:
        lines.append(
            f"{counted['patients']} {_text(cutoffs.get('calibrated_on'))} patients, "
            f"{counted.get('healthy', '-')} of them "
            f"{_text(counted.get('healthy_means', WITHOUT_ANY))}, who trained, selected and "
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
    lines.append(_table([*head, "rule-in cutoff", "slope, intercept", "prevalence"], rows))
    lines += [f"- fusion, {name}: {_text(text)}" for name, text in fusion.items()]
    return "\n".join(lines) + ("\n" if fusion else "")


def _figures(metrics: Json) -> str:
    """AUC and rates of each target, and of the patients as a whole."""
    targets = metrics.get("targets") or {}
    if not targets:
        return "## Figures\n\nNothing was measured.\n"
    data = metrics["data"]
    lines = [
        "## Figures\n",
        f"{data['patients']} patients, {data['injured']} injured, {data['healthy']} "
        f"{data['healthy_means']}; input: {data['input']}.",
        *(f"Scored {_text(text)}." for text in [metrics.get("scored")] if text),
        f"Intervals of 95 %: AUC by {metrics['intervals']['auc']}; proportions by "
        f"{metrics['intervals']['rates']}.\n",
    ]
    published = metrics.get("published_auc") or {}
    head = ["target", "injured", "AUC", "rule-out: sensitivity", "specificity"]
    head += ["rule-in: sensitivity", "specificity", "accuracy at zero misses"]
    head += ["published AUC (real)"] if published else []
    rows = [
        [*_row(n, m), *([number(published.get(n))] if published else [])]
        for n, m in targets.items()
    ]
    lines.append(_table(head, rows))
    if published:
        lines.append(
            "The published AUC is of the system whose recipe this follows, on real patients: not "
            "comparable, it shows what is to be beaten.\n"
        )
    chance = by_chance(targets)
    if chance:
        lines.append(
            f"**Not shown to be better than chance: {', '.join(chance)}.** Do not use these "
            "answers.\n"
        )
    return "\n".join(lines) + _whole(metrics)


def _row(name: str, found: Json) -> list[str]:
    out, inn, zero = (found[k] or {} for k in ("rule_out", "rule_in", "zero_fn"))
    return [
        name,
        f"{found['positives']} of {found['patients']}",
        interval(found["auc"]),
        percents(out.get("sensitivity")),
        percents(out.get("specificity")),
        percents(inn.get("sensitivity")),
        percents(inn.get("specificity")),
        percents(zero.get("accuracy")),
    ]


def _whole(metrics: Json) -> str:
    whole, joint, rsna = (metrics.get(k) or {} for k in ("any_injury", "joint", "rsna"))
    lines = []
    if whole.get("auc", {}).get("value") is not None:
        lines.append(f"- {whole['means'].capitalize()}: AUC {interval(whole['auc'])}.")
    if joint:
        lines.append(f"- {unsuspected(joint)}")
    if rsna.get("score") is not None:
        lines.append(
            f"- RSNA 2023 challenge metric (lower is better): {number(rsna['score'], 4)}, "
            f"{number(rsna['reweighted'], 4)} with the metric's weights on the probabilities; best "
            f"constant guess {number(rsna['constant_guess'], 4)}."
        )
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _groups(targets: Json) -> str:
    """By grade, size and contrast; nothing where none is known."""
    rows = []
    for name, found in targets.items():
        groups = [(f"{grade} grade", group) for grade, group in found["grades"].items()]
        for key in GROUPS:
            groups += [(bin_name(group, UNITS[key]), group) for group in found[key]]
        rows += [
            [
                name,
                said,
                str(group["positives"]),
                interval(group["auc"]),
                percents(group.get("rule_in_sensitivity")),
            ]
            for said, group in groups
        ]
    if not rows:
        return ""
    head = ["target", "injuries", "patients", "AUC against none", "rule-in: sensitivity"]
    return (
        "## By grade, size and contrast\n\nSize: largest extent (mm) and volume (ml); contrast: "
        "difference to the organ (HU).\n\n" + _table(head, rows)
    )


def _probabilities(targets: Json) -> str:
    rows = [
        [
            name,
            number(found["brier"], 4),
            interval(found["calibration"]["slope"]),
            interval(found["calibration"]["intercept"]),
            number(found["calibration"]["observed_over_expected"]),
        ]
        for name, found in targets.items()
        if found["calibration"]
    ]
    if not rows:
        return ""
    head = ["target", "Brier score", "slope", "intercept", "observed / expected"]
    return "## Are the probabilities right\n\n" + _table(head, rows)


def _branches(targets: Json) -> str:
    rows = [
        [name, branch, str(b["patients"]), interval(b["auc"]), lead(b["lead"])]
        for name, found in targets.items()
        for branch, b in found["branches"].items()
        if len(found["branches"]) > 1
    ]
    if not rows:
        return ""
    head = ["target", "branch", "patients", "AUC", "lead over the score"]
    return "## Branches\n\n" + _table(head, rows)


def _heads(said: Json) -> str:
    """What became of the sequence heads that were trained: target -> words."""
    if not said:
        return ""
    lines = "".join(f"- {_text(name)}: {_text(text)}.\n" for name, text in said.items())
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
            parts.append(f"### {_text(title)}\n")
        if isinstance(found, Mapping) and "targets" in found:
            data = found["data"]
            parts.append(f"{data['patients']} patients; input: {data['input']}.\n")
            head = ["target", "injured", "AUC", "rule-out: sensitivity", "specificity"]
            head += ["rule-in: sensitivity", "specificity", "accuracy at zero misses"]
            parts.append(_table(head, [_row(n, m) for n, m in found["targets"].items()]))
            parts += [f"{_text(note)}\n" for note in data["notes"]]
        else:
            parts.append(_any(found, "" if isinstance(found, Mapping) else str(title)))
    return "\n".join(parts)


def _ablations(ablations: Json) -> str:
    """`metrics["ablations"]`: name -> target -> AUC (a number, or value with its interval)."""
    if not ablations:
        return ""
    names: list[str] = []
    for found in ablations.values():
        if not isinstance(found, Mapping):
            return "## Ablations\n\n" + _any(ablations)
        names += [n for n in found if n not in names]
    rows = [[_text(k), *(_value(found.get(n)) for n in names)] for k, found in ablations.items()]
    return "## Ablations\n\n" + _table(["what", *(_text(n) for n in names)], rows)


def _any(found: Any, path: str = "") -> str:
    """Figures of unknown shape as a list, one a line."""
    if isinstance(found, Mapping) and not {"value", "low", "high"} <= found.keys():
        lines = [_any(v, f"{path}, {k}" if path else str(k)) for k, v in found.items()]
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    return f"- {_text(path)}: {_value(found)}\n"


def _value(value: Any) -> str:
    if value is None or isinstance(value, Mapping):
        return interval(value)
    return f"{value:.4g}" if isinstance(value, float) else _text(value)


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
