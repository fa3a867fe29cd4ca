"""The evaluation as one HTML file: pictures inside, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from triage.training.evaluation.wording import (
    GROUPS,
    UNITS,
    bin_name,
    by_chance,
    interval,
    lead,
    number,
    percents,
)
from triage.types import DISCLAIMER

Figures = Mapping[str, Mapping[str, bytes]]  # target -> kind -> PNG
KINDS = ("roc", "calibration", "decision")


def page(metrics: Mapping[str, Any], figures: Figures) -> str:
    """HTML from metrics.json and its figures; every text that came from outside is escaped."""
    bundle = metrics.get("bundle")
    title = "Evaluation of a score table"
    if bundle:
        title = f"Evaluation of {bundle['name']} {bundle['version']}"
    targets: Mapping[str, Any] = metrics["targets"]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="banner"><strong>{escape(DISCLAIMER)}.</strong></p>',
        _about(metrics),
        *(_banner(note) for note in metrics["data"]["notes"]),
        *_chance(targets),
        "<h2>Summary</h2>",
        _summary(targets),
        _whole(metrics),
        *(_target(name, found, figures.get(name, {})) for name, found in targets.items()),
        "<h2>How it was measured</h2>",
        _method(metrics),
        f"<footer><p>{escape(DISCLAIMER)}.</p></footer>",
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def _banner(text: str, kind: str = "") -> str:
    return f'<p class="banner {kind}">{escape(text)}</p>'


def _chance(targets: Mapping[str, Any]) -> list[str]:
    names = by_chance(targets)
    if not names:
        return []
    return [_banner(f"Not shown to be better than chance: {', '.join(names)}.", "bad")]


def _about(metrics: Mapping[str, Any]) -> str:
    data, bundle = metrics["data"], metrics.get("bundle")
    shares = data["prevalence"]
    weighed = "as they come" if shares == "as-is" else "weighed to given shares of injured patients"
    if data["weighted"]:
        weighed += ", patients by their own weights where that is said"
    parts = [
        f"{data['patients']} patients ({data['persons']} persons), {data['injured']} injured, "
        f"{data['healthy']} {data['healthy_means']}, {weighed}",
        f"input: {data['input']}",
    ]
    if bundle:
        parts.append(
            f"bundle calibrated on {bundle['calibrated_on']} patients, "
            f"sha256 {bundle['sha256'][:12]}"
        )
    return f'<p class="grey">{escape("; ".join(parts))}.</p>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table>{said}<thead><tr>{top}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _summary(targets: Mapping[str, Any]) -> str:
    """AUC and rates at both cutoffs; without cutoffs, what can be said without them."""
    head = ["target", "injured", "AUC"]
    rows = [
        [name, f"{found['positives']} of {found['patients']}", interval(found["auc"])]
        for name, found in targets.items()
    ]
    if any(found["auc_weighted"] for found in targets.values()):
        head.append("AUC, weighted")
        for row, found in zip(rows, targets.values(), strict=True):
            row.append(interval(found["auc_weighted"]))
    if not any(found["rule_out"] or found["rule_in"] for found in targets.values()):
        for row, found in zip(rows, targets.values(), strict=True):
            row.append(percents((found["zero_fn"] or {}).get("accuracy")))
        said = "With 95 % intervals. * with a cutoff set on these very patients"
        return _table([*head, "accuracy at zero misses *"], rows, said)
    for row, found in zip(rows, targets.values(), strict=True):
        out, inn = found["rule_out"] or {}, found["rule_in"] or {}
        row += [percents(out.get("sensitivity")), str(out.get("missed", "-"))]
        row += [percents(out.get("specificity"))]
        row += [percents(inn.get(rate)) for rate in ("sensitivity", "specificity")]
    head += ["rule-out: sensitivity", "missed", "specificity", "rule-in: sensitivity"]
    said = (
        "With 95 % intervals. At rule-in a target is suspected; below rule-out nobody with the "
        "injury was missed in calibration."
    )
    return _table([*head, "specificity"], rows, said)


def _whole(metrics: Mapping[str, Any]) -> str:
    """What concerns the patient as a whole: any injury, false alarms, the challenge's metric."""
    whole, joint, rsna = metrics["any_injury"], metrics["joint"], metrics["rsna"]
    rows = []
    if whole["auc"]["value"] is not None:
        count = f"{whole['positives']} injured"
        rows.append([f"AUC for {whole['means']}", interval(whole["auc"]), count])
    if whole["suspected"]:
        rows.append(
            [
                "Injured patients with any suspected target",
                percents(whole["suspected"]["sensitivity"]),
                f"{whole['suspected']['missed']} without",
            ]
        )
    if joint:
        rows.append(
            [
                f"Patients {joint['healthy_means']} in whom no target is suspected",
                percents(joint["specificity"]),
                f"{joint['suspected']} of {joint['healthy']} flagged",
            ]
        )
    if rsna["score"] is not None:
        note = (
            f"lower is better; {number(rsna['reweighted'], 4)} with the metric's weights on the "
            f"probabilities; best constant guess {number(rsna['constant_guess'], 4)}"
        )
        rows.append(["RSNA 2023 challenge metric", number(rsna["score"], 4), note])
    else:
        rows.append(["RSNA 2023 challenge metric", "-", str(rsna["reason"])])
    return f'<div class="notes">{_table(["patients as a whole", "value", ""], rows)}</div>'


def _target(name: str, found: Mapping[str, Any], figures: Mapping[str, bytes]) -> str:
    parts = [f"<h2>{escape(name.capitalize())}</h2>"]
    missing = found["not_assessed"]
    if missing["patients"]:
        parts.append(
            _banner(
                f"Not assessed in {missing['patients']} patients, {missing['positives']} of them "
                "injured: they count nowhere below."
            )
        )
    images = "".join(
        f'<img alt="{escape(f"{kind} of {name}")}" '
        f'src="data:image/png;base64,{base64.b64encode(figures[kind]).decode()}">'
        for kind in KINDS
        if kind in figures
    )
    parts.append(f'<div class="figures">{images}</div>')
    parts.append('<div class="tables">')
    parts += [_operating(found), _probabilities(found), _branches(found), *_groups(found)]
    parts.append("</div>")
    return "\n".join(part for part in parts if part)


def _operating(found: Mapping[str, Any]) -> str:
    names = {"rule_out": "rule-out", "rule_in": "rule-in", "zero_fn": "zero misses here *"}
    rows = [
        [
            said,
            f"{found[key]['cutoff']:.4g}",
            percents(found[key]["sensitivity"]),
            percents(found[key]["specificity"]),
            percents(found[key]["accuracy"]),
        ]
        for key, said in names.items()
        if found[key]
    ]
    if not rows:
        return ""
    head = ["cutoff", "at", "sensitivity", "specificity", "accuracy"]
    return _table(head, rows, "* set on these very patients: flattering by construction")


def _probabilities(found: Mapping[str, Any]) -> str:
    fit = found["calibration"]
    if not fit:
        return ""
    rows = [
        ["Brier score", number(found["brier"], 4)],
        ["calibration slope", interval(fit["slope"])],
        ["calibration intercept", interval(fit["intercept"])],
        ["observed / expected", number(fit["observed_over_expected"])],
    ]
    return _table(["probabilities", ""], rows)


def _branches(found: Mapping[str, Any]) -> str:
    rows = [
        [name, str(b["patients"]), interval(b["auc"]), lead(b["lead"])]
        for name, b in found["branches"].items()
    ]
    if len(rows) < 2:
        return ""
    return _table(["branch", "patients", "AUC", "lead over the score"], rows)


def _groups(found: Mapping[str, Any]) -> list[str]:
    tables = []
    head = ["injured", "AUC against none", "sensitivity: rule-out", "rule-in"]

    def row(name: str, group: Mapping[str, Any]) -> list[str]:
        return [
            name,
            str(group["positives"]),
            interval(group["auc"]),
            percents(group.get("rule_out_sensitivity")),
            percents(group.get("rule_in_sensitivity")),
        ]

    if found["grades"]:
        rows = [row(f"{name} grade", group) for name, group in found["grades"].items()]
        tables.append(_table(["By grade", *head], rows))
    for key, title in GROUPS.items():
        if found[key]:
            rows = [row(bin_name(group, UNITS[key]), group) for group in found[key]]
            tables.append(_table([title, *head], rows))
    return tables


def _method(metrics: Mapping[str, Any]) -> str:
    used = metrics["intervals"]
    return (
        f"<p>Intervals are of 95 %. AUC: {escape(used['auc'])}. Proportions: "
        f"{escape(used['rates'])}, which take patients for independent. A patient counts once, "
        "with the highest score of all series. Subgroups of injured patients are compared with all "
        "patients without that injury. All figures are in <code>metrics.json</code>.</p>"
    )
