"""What the study page shows: findings in plain words, pictures, versions, timeline, files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Session

from triage.imaging.windows import TARGET_WINDOW
from triage.service.api.view import whole
from triage.service.records import analyses
from triage.service.records import reading as records
from triage.service.records.models import Analysis, Study
from triage.service.records.reading_models import Review
from triage.service.web import beside
from triage.service.web.listing import chip, number, took, why
from triage.service.web.people import patient, tidy
from triage.service.web.wishes import Wishes
from triage.service.web.words import Words
from triage.types import TARGETS, Organ, Status, Target, Verdict

COMPARED = 6  # versions side by side
# On the page the gravest stands first.
GRAVITY = (
    Verdict.SUSPECTED,
    Verdict.NOT_EXCLUDED,
    Verdict.UNCERTIFIED,
    Verdict.NOT_ASSESSED,
    Verdict.NO_FINDING,
)


def study(session: Session, found: Study, version: int, wishes: Wishes) -> dict[str, Any]:
    """Everything on the page. `version`: of the analysis; 0 or one that is not there: current."""
    words = wishes.words
    facts = whole(session, found)
    every = analyses.of_study(session, found.id)
    current = next((a for a in every if a.current), None)
    finished = [a for a in every if a.finished_at is not None]
    chosen = next((a for a in finished if a.version == version), current)
    report = (chosen.report if chosen else None) or {}
    said = records.of_study(session, found.id)
    return {
        **facts,
        "patient": patient(found, words, wishes.mask),
        "description": "" if wishes.mask else tidy(found.study_description),
        "stage_text": words.known(f"stage.{facts['stage']}", facts["stage"]),
        "why": why(_reason_of(chosen, facts), words),
        "under_way": facts["status"] in (Status.RECEIVED, Status.ANALYSING),
        "expected": found.expected_instances,
        "seen_by": found.acknowledged_by or "",
        "took": took(found.received_at, found.flagged_at, found.finished_at, words),
        "chosen": chosen.version if chosen else None,
        "chosen_is_current": chosen is current,
        "findings": _findings(found, chosen, report, said, words) if chosen else [],
        "bundle": report.get("bundle") or {},
        "warnings": [beside.warning(w, words) for w in report.get("warnings") or ()],
        "used": report.get("series") or [],
        "scenes": beside.scenes(found, chosen, report),
        "windows": beside.windows(words),
        "organs": {o.value: words(f"organ.{o.value}") for o in Organ}
        | {f"hot_{t.value}": f"▲ {words(f'target.{t.value}')}" for t in TARGETS},
        "compared": beside.compared(finished[-COMPARED:], words),
        "moments": [beside.moment(m, words) for m in facts["timeline"]],
        "files": beside.files(found, chosen, report, facts, words) if chosen else [],
        "reviews": [beside.review(r, every, words) for r in said],
    }


def _reason_of(chosen: Analysis | None, facts: dict[str, Any]) -> dict[str, str] | None:
    """Of the version that is shown; of the study where there is none yet."""
    if chosen is None or not chosen.reason:
        reason: dict[str, str] | None = facts["reason"] if chosen is None else None
        return reason
    said = (chosen.report or {}).get("reason") or {}
    return {
        "code": chosen.reason,
        "message": said.get("message", ""),
        "fix": said.get("fix", ""),
    }


# ---- findings


def _findings(
    found: Study,
    chosen: Analysis,
    report: dict[str, Any],
    said: Sequence[Review],
    words: Words,
) -> list[dict[str, Any]]:
    targets = report.get("targets") or {}
    base = f"/api/v1/studies/{found.id}"
    rows = []
    for target in TARGETS:
        one = targets.get(target.value)
        if one is None:
            continue
        mine = [r for r in said if r.analysis_id == chosen.id and r.target == target.value]
        rows.append(_finding(target, one, report, base, chosen.version, mine, words))
    order = {verdict.value: place for place, verdict in enumerate(GRAVITY)}
    return sorted(rows, key=lambda row: order[row["verdict"]])


def _finding(
    target: Target,
    one: dict[str, Any],
    report: dict[str, Any],
    base: str,
    version: int,
    said: Sequence[Review],
    words: Words,
) -> dict[str, Any]:
    simulated = (report.get("bundle") or {}).get("calibrated_on") != "real"
    side, grade = one.get("side"), one.get("grade")
    shown = chip(
        target.value,
        {"verdict": one["verdict"], "probability": one["probability"], "side": side}
        | {"reason": one.get("reason")},
        words,
    )
    reason = one.get("reason")
    key = words("score.simulated" if simulated else "score.real")
    return {
        **shown,
        "grade": words.known(f"grade.{grade}", grade) if grade else "",
        "score_name": key,
        "meaning": words(f"meaning.{one['verdict']}"),
        "fix": words.known(f"reason.{reason}.fix") if reason else "",
        "cutoffs": _cutoffs(one, words),
        "scale": scale(one),
        "certificate": certificate(one, simulated, words),
        "rule_in": rule_in(one, words),
        "slices": _slices(target, one, report, base, version),
        "series": series_number(one, report),
        "window": TARGET_WINDOW[target],
        "reviewed": said[0].agree if said else None,
    }


def certificate(one: dict[str, Any], simulated: bool, words: Words) -> str:
    """What the rule-out cutoff is worth, in words that are true to what it was calibrated on."""
    if one["verdict"] == Verdict.NOT_ASSESSED:
        return ""
    rule_out = one.get("rule_out") or {}
    n, bound = rule_out.get("positives") or 0, rule_out.get("sensitivity_lower_bound") or 0.0
    if not n:
        return words("certificate.none")
    if simulated:
        return words("certificate.simulated", n=n, bound=percent(bound))
    kind = "certificate.few" if one["verdict"] == Verdict.UNCERTIFIED else "certificate.real"
    return words(kind, n=n, bound=percent(bound))


def rule_in(one: dict[str, Any], words: Words) -> str:
    """How often the rule-in cutoff alarms without an injury."""
    specificity = (one.get("rule_in") or {}).get("specificity")
    if specificity is None or one["verdict"] == Verdict.NOT_ASSESSED:
        return ""
    alarms = max(0.0, 100 * (1 - specificity))
    if alarms < 0.05:
        return words("certificate.rule_in_none")
    if alarms < 0.95:
        return words("certificate.rule_in_few")
    return words("certificate.rule_in", n=f"{alarms:.2g}")


def percent(share: float) -> str:
    """Rounded down: a bound must not grow."""
    return f"{math.floor(share * 100 + 1e-9)}"


def _cutoffs(one: dict[str, Any], words: Words) -> list[tuple[str, str]]:
    rows = []
    for name in ("rule_in", "rule_out"):
        cutoff = (one.get(name) or {}).get("cutoff")
        if cutoff is not None:
            rows.append((words(f"cutoff.{name}"), number(cutoff)))
    return rows


def scale(one: dict[str, Any]) -> dict[str, float] | None:
    """Places of score and cutoffs on a line from 0 to 100, by the logit: cutoffs are small."""
    values = {
        "score": one.get("probability"),
        "rule_in": (one.get("rule_in") or {}).get("cutoff"),
        "rule_out": (one.get("rule_out") or {}).get("cutoff"),
    }
    if any(v is None for v in values.values()):
        return None
    return {name: round(_place(float(v)), 1) for name, v in values.items() if v is not None}


def _place(p: float) -> float:
    """0.001 -> 0, 0.999 -> 100, linear in the logit."""
    ends = math.log(0.999 / 0.001)
    bounded = min(max(p, 0.001), 0.999)
    return 50 + 50 * math.log(bounded / (1 - bounded)) / ends


def series_number(one: dict[str, Any], report: dict[str, Any]) -> int:
    """Which of the report's series, from 1, the finding is of."""
    uids = [s.get("series_instance_uid") for s in report.get("series") or ()]
    uid = one.get("series_instance_uid")
    return uids.index(uid) + 1 if uid in uids else 1


def _slices(
    target: Target, one: dict[str, Any], report: dict[str, Any], base: str, version: int
) -> list[dict[str, Any]]:
    """The pictures, strongest first, each with its unmarked twin and where it lies (0 feet, 1)."""
    keys, rows = one.get("key_slices") or [], []
    series = report.get("series") or []
    number_of = series_number(one, report)
    depth = series[number_of - 1]["slices"] if len(series) >= number_of else 0
    for place, name in enumerate(one.get("overlays") or ()):
        file = quote(name.removeprefix("overlays/"))
        key = keys[place] if place < len(keys) else None
        plain = quote(name.removeprefix("overlays/").removesuffix(".png") + "_plain.png")
        rows.append(
            {
                "overlay": f"{base}/overlays/{file}?version={version}",
                "plain": f"{base}/overlays/{plain}?version={version}" if key else "",
                "index": key["index"] if key else None,
                "instance": key["instance_number"] if key else None,
                "score": number(key["score"]) if key else "",
                "height": round((key["index"] + 0.5) / depth, 4) if key and depth else None,
                "target": target.value,
            }
        )
    return rows
