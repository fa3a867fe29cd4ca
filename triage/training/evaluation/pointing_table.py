"""The rows of `pointing` as one table: shares with exact 95 % intervals, and what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from triage.saliency.names import Method
from triage.training.evaluation.rates import clopper_pearson
from triage.types import TARGETS, Target

Row = dict[str, Any]

# Aims, set before anything was measured.
HITS: dict[Target, float] = {
    Target.BOWEL: 0.65,
    Target.EXTRAVASATION: 0.80,
    Target.KIDNEY: 0.80,
    Target.LIVER: 0.80,
    Target.SPLEEN: 0.80,
}
LIFT, CROSSED, SIMILAR, FALLS = 5.0, 0.90, 0.50, 0.90


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of each target, and of all together under `all`."""
    out = {}
    for target in TARGETS:
        own = [r for r in rows if r.get("target") == target.value]
        if own:
            out[target.value] = {"aim": HITS[target], **_target(own)}
    every = [r for r in rows if r.get("target")]
    return {"targets": out, "all": _target(every) if every else {}}


def _target(rows: Sequence[Row]) -> dict[str, Any]:
    true = [r for r in rows if r["true_positive"]]
    names = dict.fromkeys(name for r in rows for name in r["methods"])  # in order
    fallen = [r["deletion"]["top"] > r["deletion"]["random"] for r in true if "deletion" in r]
    alike = [r["similarity"] for r in rows if "similarity" in r]
    shown = [r["similarity_shown"] for r in rows if "similarity_shown" in r]
    return {
        "positives": len(rows),
        "patients": len({r["patient"] for r in rows}),
        "true_positives": len(true),
        "reached": share([r["reached"] for r in rows]),
        "chance": float(np.mean([r["chance"] for r in rows])),
        "chance_body": float(np.mean([r["chance_body"] for r in rows])),
        "centre": float(np.mean([r["centre"] for r in rows])),
        "methods": {name: _method(name, rows) for name in names},
        "key_slice": share([r["key_slice"]["any"] for r in true]),
        "key_slice_all": share([r["key_slice"]["any"] for r in rows]),
        "key_slice_first": share([r["key_slice"]["first"] for r in rows]),
        "key_slice_chance": float(np.mean([r["key_slice"]["chance"] for r in rows])),
        "deletion": share(fallen),
        "similarity": {
            "patients": len(alike),
            "mean": float(np.mean(alike)) if alike else None,
            "largest": max(alike, default=None),
            "shown_mean": float(np.mean(shown)) if shown else None,
        },
    }


def _method(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    own = [r for r in rows if name in r["methods"]]
    found = [r["methods"][name] for r in own]
    true = [r["methods"][name]["hit"] for r in own if r["true_positive"]]
    inside, by_chance = [m["share"] for m in found], [r["chance"] for r in own]
    in_body = max(float(np.mean([r["chance_body"] for r in own])), 1e-9)
    return {
        "speaks": share([m["speaks"] for m in found]),
        "hit": share([m["hit"] for m in found]),
        "hit_true_positives": share(true),
        "hit_strict": share([m["hit_strict"] for m in found]),
        "inside": float(np.mean(inside)),
        "lift": float(np.mean(inside) / max(float(np.mean(by_chance)), 1e-9)),
        "lift_body": float(np.mean(inside) / in_body),
        "seconds": float(np.median([m["seconds"] for m in found])),
    }


def share(answers: Sequence[bool]) -> dict[str, Any]:
    """How many said yes, with the exact interval (Clopper & Pearson); nothing of nobody."""
    if not answers:
        return {"n": 0, "value": None, "low": None, "high": None}
    found = clopper_pearson(sum(map(bool, answers)), len(answers))
    return {"n": len(answers), "value": found.value, "low": found.low, "high": found.high}


def markdown(found: Mapping[str, Any], about: str) -> str:
    """The figures as Markdown: methods of each target, then what was asked of the default."""
    lines = [about, "", *_methods(found["targets"]), "", *_asked(found["targets"])]
    return "\n".join(lines) + "\n"


def _methods(targets: Mapping[str, Any]) -> list[str]:
    lines = [
        "| target | method | positives | pointing game | of true positives | inside |"
        " / chance in the body | / chance near the organs | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in targets.items():
        n = one["positives"]
        lines.append(
            f"| {name} | chance | {n} | {one['chance']:.3f} | | {one['chance']:.3f} near,"
            f" {one['chance_body']:.4f} body | 1 | 1 | |"
        )
        lines.append(f"| {name} | centre of the organ | {n} | {one['centre']:.2f} | | | | | |")
        for method, m in one["methods"].items():
            lines.append(
                f"| {name} | {method} | {m['hit']['n']} | {_said(m['hit'])} |"
                f" {_said(m['hit_true_positives'])} | {m['inside']:.2f} | {m['lift_body']:.1f} |"
                f" {m['lift']:.1f} | {m['seconds']:.1f} |"
            )
    return lines


def _asked(targets: Mapping[str, Any]) -> list[str]:
    lines = [
        f"| target | true positives | hit (aim) | inside / chance in the body (>= {LIFT:g}) |"
        f" key slice crosses, true positives (>= {CROSSED:g}) | key slice crosses, all |"
        f" score falls more than by random voxels (>= {FALLS:g}) |"
        f" similarity, shuffled weights (< {SIMILAR:g}) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in targets.items():
        m, alike = one["methods"][Method.MAP.value], one["similarity"]
        same = "-" if alike["mean"] is None else f"{alike['mean']:.2f} (largest "
        same += "" if alike["mean"] is None else f"{alike['largest']:.2f}, n {alike['patients']})"
        lines.append(
            f"| {name} | {one['true_positives']} | {m['hit']['value']:.2f} ({one['aim']:.2f}) |"
            f" {m['lift_body']:.1f} | {_said(one['key_slice'])} |"
            f" {_said(one['key_slice_all'])}; chance {one['key_slice_chance']:.2f} a slice |"
            f" {_said(one['deletion'])} | {same} |"
        )
    return lines


def _said(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    return f"{found['value']:.2f} ({found['low']:.2f}-{found['high']:.2f}, n {found['n']})"
