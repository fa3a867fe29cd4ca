"""Right patient, right part, right way round: findings about a series, from the voxels alone.

One table (`RULES`) turns what was seen into reason codes. Which of them refuse a series and which
only warn is a setting (TRIAGE_QUALITY_REFUSE, TRIAGE_QUALITY_SURE).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from triage.dicom.body_parts import regions
from triage.imaging.turns import LEFT_RIGHT
from triage.inference.pose import Coverage, Orientation, look
from triage.nets.quality_bundle import QualityNetworks, find_quality, load_quality
from triage.reasons import REASONS, NotAnalysed
from triage.settings import Settings
from triage.types import TARGETS, Target

# Levels that a target's organs usually take (T1 = 1, L1 = 13, S1 = 18): head end, foot end.
USUAL_LEVELS: dict[Target, tuple[float, float]] = {
    Target.LIVER: (10.0, 14.0),
    Target.SPLEEN: (10.5, 13.0),
    Target.KIDNEY: (12.5, 15.0),
    Target.BOWEL: (12.5, 18.0),
    Target.EXTRAVASATION: (11.0, 18.0),
}
NOT_CHECKED = "Body part, orientation and coverage were not checked: the networks are missing."
PART_SHARE = 0.3  # of a scan: a smaller piece of a region is not what was examined
LEVEL_SLACK = 0.7  # levels; people differ
LIMITS: dict[str, float] = {
    "abdomen": 0.25,  # of the best 42 mm, mean probability; below: not an abdomen
    "turn_log_odds": 4.0,  # another orientation than said
    "mirror_log_odds": 4.0,
    "distance": 3.0,  # root mean squares of the training set
    "noise_hu": 60.0,
    "metal_ml": 60.0,
    "step": 8.0,
    "truncated_fraction": 0.8,
    "judged_mm": 60.0,  # less abdomen: the orientation is not judged
}


@dataclass(frozen=True)
class Seen:
    """All that the rules look at."""

    orientation: Orientation
    coverage: Coverage
    distance: float
    measures: Mapping[str, Any]  # of `imaging.measure` and `imaging.artefacts`
    facts: Mapping[str, Any]  # header values
    limits: Mapping[str, float]


@dataclass(frozen=True)
class QualityFinding:
    """A suspicion: reason code, confidence (0 to 1) and what was seen."""

    code: str
    confidence: float
    detail: str

    def line(self) -> str:
        """As a warning of the report: `CODE: detail`."""
        return f"{self.code}: {self.detail}"


Answer = tuple[float, str] | None  # confidence, detail


def _not_abdomen(seen: Seen) -> Answer:
    share, limit = seen.coverage.abdomen, seen.limits["abdomen"]
    if share >= limit:
        return None
    part = {"pelvis": "the pelvis", "thigh": "thighs"}.get(
        seen.coverage.main, "the " + seen.coverage.main
    )
    return min(1.0, 1 - 0.2 * share / limit), f"the images show mostly {part}"


def _body_part(seen: Seen) -> Answer:
    said = regions(str(seen.facts.get("BodyPartExamined", "")))
    if not said:
        return None
    extent = seen.coverage.region_mm
    shown = {
        {"pelvis": "abdomen", "thigh": "extremity"}.get(name, name)
        for name, mm in extent.items()
        if mm > max(40, PART_SHARE * sum(extent.values()))
    }
    if seen.coverage.abdomen >= seen.limits["abdomen"]:
        shown.add("abdomen")
    # a spine or the neck lies in a trunk; nobody sees from the coarse picture which was meant
    if said & (shown | {"spine"}) or not shown or (said == {"neck"} and shown & {"head", "chest"}):
        return None
    tag = str(seen.facts["BodyPartExamined"])[:16]
    return 0.95, f"the header says {tag}, the images show {' and '.join(sorted(shown))}"


def _orientation(seen: Seen) -> Answer:
    found = seen.orientation
    if found.as_said or found.turn == LEFT_RIGHT or not _judged(seen):
        return None
    if found.log_odds[found.turn.code] < seen.limits["turn_log_odds"]:
        return None
    way = f"axes look like {found.turn.code} instead of RAS"
    position = str(seen.facts.get("PatientPosition", ""))[:4]
    return found.probability, way + (f", patient position {position}" if position else "")


def _mirrored(seen: Seen) -> Answer:
    found = seen.orientation
    if found.turn != LEFT_RIGHT or not _judged(seen):
        return None
    odds = found.mirrored_log_odds
    if odds < seen.limits["mirror_log_odds"]:
        return None
    return found.probability, "left and right look exchanged"


def _judged(seen: Seen) -> bool:
    return seen.coverage.region_mm["abdomen"] >= seen.limits["judged_mm"]


def _coverage(seen: Seen) -> Answer:
    missing = uncovered(seen.coverage)
    if not missing or _not_abdomen(seen):
        return None
    names = ", ".join(t.value for t in missing)
    top, bottom = seen.coverage.names
    return 0.8, f"{top} to {bottom} is shown, too little for {names}"


def uncovered(coverage: Coverage) -> tuple[Target, ...]:
    """Targets whose organs usually reach beyond the levels shown."""
    return tuple(
        target
        for target in TARGETS
        if USUAL_LEVELS[target][0] < coverage.top - LEVEL_SLACK
        or USUAL_LEVELS[target][1] > coverage.bottom + LEVEL_SLACK
    )


# Figure of the measures -> what is said where it lies above its limit.
_TOO_MUCH = {
    "noise_hu": "noise of {:.0f} HU",
    "metal_ml": "{:.0f} ml of metal",
    "step": "a jump between slices ({:.1f} times the usual difference)",
    "truncated_fraction": "the body reaches beyond the field of view in {:.0%} of the slices",
}


def _low_quality(seen: Seen) -> Answer:
    found = []
    for name, words in _TOO_MUCH.items():
        value = seen.measures.get(name)
        if value is not None and value > seen.limits[name]:
            found.append((min(1.0, 0.5 + 0.25 * value / seen.limits[name]), words.format(value)))
    if seen.measures.get("plausible") is False:
        found.append((0.9, "HU that are not those of a body"))
    if not found:
        return None
    return max(c for c, _ in found), ", ".join(text for _, text in found)


def _unlike(seen: Seen) -> Answer:
    limit = seen.limits["distance"]
    if seen.distance <= limit:
        return None
    return 1 - 0.5 * limit / seen.distance, f"{seen.distance:.1f} times the usual distance"


# The one table: reason code -> what makes it. Phase and organs are judged by `scope`.
RULES: tuple[tuple[str, Callable[[Seen], Answer]], ...] = (
    ("NOT_ABDOMEN", _not_abdomen),
    ("MISMATCH_BODY_PART", _body_part),
    ("MISMATCH_ORIENTATION", _orientation),
    ("MIRRORED_OR_SITUS_INVERSUS", _mirrored),
    ("INCOMPLETE_COVERAGE", _coverage),
    ("LOW_QUALITY", _low_quality),
    ("UNLIKE_TRAINING", _unlike),
)


@dataclass(frozen=True)
class Quality:
    """What was seen of one series, and the suspicions that follow."""

    figures: dict[str, Any]  # for report.json
    findings: tuple[QualityFinding, ...]

    def refusal(self, codes: frozenset[str], sure: float) -> QualityFinding | None:
        """The first finding that refuses the series, if any."""
        bad = (f for f in self.findings if f.code in codes and f.confidence >= sure)
        return next(bad, None)


@lru_cache(maxsize=1)
def installed() -> QualityNetworks | None:
    """The quality networks that came with the program, loaded once; None without them."""
    folder = find_quality()
    return None if folder is None else load_quality(folder)


def judge_quality(
    nets: QualityNetworks, grid: Tensor, measures: Mapping[str, Any], facts: Mapping[str, Any]
) -> Quality:
    """Findings about a series on the working grid (1, X, Y, Z), HU.

    `measures`: of `imaging.measure`; `facts`: header values by DICOM keyword.
    """
    limits = {**LIMITS, **nets.manifest.limits}
    return judge_seen(Seen(*look(nets, grid), measures, facts, limits))


def judge_seen(seen: Seen) -> Quality:
    """What follows from that which was seen."""
    findings = []
    for code, rule in RULES:
        answer = rule(seen)
        if answer is not None:
            confidence = round(min(1.0, max(0.0, answer[0])), 3)
            findings.append(QualityFinding(code, confidence, answer[1]))
    return Quality(_figures(seen, findings), tuple(findings))


def _figures(seen: Seen, findings: list[QualityFinding]) -> dict[str, Any]:
    top, bottom = seen.coverage.names
    odds = seen.orientation.log_odds[seen.orientation.turn.code]
    return {
        "abdomen": round(seen.coverage.abdomen, 3),
        "regions_mm": seen.coverage.region_mm,
        "level_top": top,
        "level_bottom": bottom,
        "axes": seen.orientation.turn.code,
        "axes_probability": round(seen.orientation.probability, 4),
        "axes_log_odds": odds if math.isfinite(odds) else None,
        "training_distance": round(seen.distance, 2),
        "findings": [
            {"code": f.code, "confidence": f.confidence, "detail": f.detail} for f in findings
        ],
    }


def check_series(
    grid: Tensor, measures: Mapping[str, Any], facts: Mapping[str, Any], options: Settings
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`measures` with what the voxels tell, and the warnings; raises NotAnalysed where one refuses.

    Without the networks of `installed` the measures stay as they are, and a warning says so.
    """
    nets = installed()
    if nets is None:
        return dict(measures), (NOT_CHECKED,)
    quality = judge_quality(nets, grid, measures, facts)
    codes = refusing(options.quality_refuse)
    lines = refuse_or_warn(quality, codes, options.quality_sure)
    return {**measures, **quality.figures}, lines


def refusing(text: str) -> frozenset[str]:
    """Codes of a setting such as "NOT_ABDOMEN,LOW_QUALITY". ValueError for unknown ones."""
    codes = frozenset(part.strip() for part in text.split(",") if part.strip())
    if unknown := sorted(codes - REASONS.keys()):
        raise ValueError(f"Unknown reason codes in TRIAGE_QUALITY_REFUSE: {', '.join(unknown)}")
    return codes


def refuse_or_warn(quality: Quality, codes: frozenset[str], sure: float) -> tuple[str, ...]:
    """Warnings of a series; raises NotAnalysed where one of its findings is to refuse it."""
    bad = quality.refusal(codes, sure)
    if bad is not None:
        raise NotAnalysed(bad.code, bad.detail)
    return tuple(f.line() for f in quality.findings)
