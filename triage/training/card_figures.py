"""The measured part of a model card: one function a section, from metrics.json alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from triage.decision.table import TargetCutoffs
from triage.training.evaluation import pointing_table
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

Json = Mapping[str, Any]
WEIGHED = (
    "Weighted: each patient counts as often as that combination of injuries comes at natural"
    " prevalence (Horvitz and Thompson, 1952), here and where probabilities are judged. All else is"
    " of the test patients as they are, among whom high grades and further injuries are more"
    " frequent."
)
HEAD = ["target", "injured", "AUC", "rule-out: sensitivity", "specificity", "accuracy"]
HEAD += ["rule-in: sensitivity", "specificity", "accuracy", "accuracy at zero misses"]


def one_line(value: object) -> str:
    """Text from a manifest on one line, without the signs that would end a table cell."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def figures(metrics: Json) -> str:
    """AUC and rates of each target, and of the patients as a whole."""
    targets = metrics.get("targets") or {}
    if not targets:
        return "## Figures\n\nNothing was measured.\n"
    data = metrics["data"]
    lines = [
        "## Figures\n",
        f"{data['patients']} patients, {data['injured']} injured, {data['healthy']} "
        f"{data['healthy_means']}; input: {data['input']}.",
        *(f"Scored {one_line(said)}." for said in [metrics.get("scored")] if said),
        f"Intervals of 95 %: AUC by {metrics['intervals']['auc']}; proportions by "
        f"{metrics['intervals']['rates']}.\n",
        *([f"{WEIGHED}\n"] if data.get("weighted") else []),
    ]
    published = metrics.get("published_auc") or {}
    accuracy = metrics.get("published_accuracy") or {}
    lines.append(beside(targets, published, accuracy))
    if published:
        lines.append(
            "The published figures are of the system whose recipe this follows, on real patients: "
            "not comparable, they show what is to be beaten. Its accuracy is that at zero misses.\n"
        )
    chance = by_chance(targets)
    if chance:
        lines.append(
            f"**Not shown to be better than chance: {', '.join(chance)}.** Do not use these "
            "answers.\n"
        )
    return "\n".join(lines) + _whole(metrics)


def beside(targets: Json, published: Json, accuracy: Json) -> str:
    """A row a target, with the published figures at its end where they are wanted."""
    head = [*HEAD, *(["published AUC (real)", "published accuracy"] if published else [])]
    rows, weighted = [], any(found.get("auc_weighted") for found in targets.values())
    if weighted:
        head.insert(HEAD.index("AUC") + 1, "AUC, weighted")
    for name, found in targets.items():
        row = _row(name, found)
        if weighted:
            row.insert(HEAD.index("AUC") + 1, interval(found.get("auc_weighted")))
        if published:
            row += [number(published.get(name)), _percent(accuracy.get(name))]
        rows.append(row)
    return table(head, rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _row(name: str, found: Json) -> list[str]:
    out, inn, zero = (found[k] or {} for k in ("rule_out", "rule_in", "zero_fn"))
    return [
        name,
        f"{found['positives']} of {found['patients']}",
        interval(found["auc"]),
        percents(out.get("sensitivity")),
        percents(out.get("specificity")),
        percents(out.get("accuracy")),
        percents(inn.get("sensitivity")),
        percents(inn.get("specificity")),
        percents(inn.get("accuracy")),
        percents(zero.get("accuracy")),
    ]


def _whole(metrics: Json) -> str:
    whole, joint, rsna = (metrics.get(k) or {} for k in ("any_injury", "joint", "rsna"))
    lines = []
    if whole.get("auc", {}).get("value") is not None:
        weighted = whole.get("auc_weighted")
        more = f", weighted {interval(weighted)}" if weighted else ""
        lines.append(f"- {whole['means'].capitalize()}: AUC {interval(whole['auc'])}{more}.")
    if joint:
        lines.append(f"- {unsuspected(joint)}")
    if rsna.get("score") is not None:
        lines.append(
            f"- RSNA 2023 challenge metric (lower is better): {number(rsna['score'], 4)}, "
            f"{number(rsna['reweighted'], 4)} with the metric's weights on the probabilities; best "
            f"constant guess {number(rsna['constant_guess'], 4)}."
        )
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def groups(targets: Json) -> str:
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
        "difference to the organ (HU).\n\n" + table(head, rows)
    )


def probabilities(targets: Json) -> str:
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
    return "## Are the probabilities right\n\n" + table(head, rows)


def branches(targets: Json) -> str:
    rows = [
        [name, branch, str(b["patients"]), interval(b["auc"]), lead(b["lead"])]
        for name, found in targets.items()
        for branch, b in found["branches"].items()
        if len(found["branches"]) > 1
    ]
    if not rows:
        return ""
    head = ["target", "branch", "patients", "AUC", "lead over the score"]
    return "## Branches\n\n" + table(head, rows)


def engines(agreement: Json, cutoffs: Json) -> str:
    """How far engines lie apart, and what that costs: agreement.json and cutoffs.json."""
    if not agreement:
        return ""
    rows = []
    for name, found in agreement["targets"].items():
        entry = (cutoffs.get("targets") or {}).get(name)
        applied = TargetCutoffs.from_dict(entry).applied_rule_out.cutoff if entry else None
        rows.append(
            [
                name,
                str(found["patients"]),
                number(found["largest"], 4),
                number(found["p99"], 4),
                f"{found['verdicts_changed']}, {found['changed_outside_margin']}",
                number((entry or found)["engine_margin"], 3),
                "-" if applied is None else f"{applied:.4g}",
            ]
        )
    note = f"{one_line(agreement['note'])} " if agreement.get("note") else ""
    head = ["target", "patients", "largest difference of the score", "99 % below"]
    head += ["verdicts changed, of these outside the margin", "margin (log odds)"]
    return (
        f"## Engines\n\n{one_line(agreement['engine'])} against "
        f"{one_line(agreement['reference'])}, simulated patients. {note}The rule-out cutoff is "
        "lowered by the margin, the largest difference of the score's log odds, on every machine; "
        "rates elsewhere in this card are at the cutoffs before that.\n\n"
        + table([*head, "rule-out cutoff applied"], rows)
    )


def explanations(saliency: Json) -> str:
    """Where the maps point: saliency.json."""
    if not saliency:
        return ""
    about = (
        f"{saliency['patients']} injured simulated patients. Shares with exact 95 % intervals. "
        "Lesions are grown by 10 mm; aims, set before anything was measured, stand in the heads. "
        "How it is asked: docs/SALIENCY.md."
    )
    return "## Do the explanations point at the injury\n\n" + pointing_table.markdown(
        saliency, about
    )
