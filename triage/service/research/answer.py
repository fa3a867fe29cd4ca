"""What was answered and what readers said of it, without a name: the JSON beside the images.

Built from a list of what stays, as the images are: nothing that somebody typed (comments, names of
readers, warnings, descriptions) and no time goes along. UIDs are those of the exported images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from triage.service.records import reading
from triage.service.records.reading_models import Review

SCHEMA_VERSION = "1"
TARGET = ("probability", "verdict", "flagged", "reason", "side", "grade", "rule_out", "rule_in")
SLICE = ("instance_number", "index", "score")


def answer_of(
    report: Mapping[str, Any] | None, reviews: Iterable[Review], uids: Mapping[str, str]
) -> dict[str, Any]:
    """`report`: report.json of the current analysis, None before the first. `reviews`: newest
    first. `uids`: old -> new; what is not among the exported images is left out."""
    told = report or {}
    targets = told.get("targets") or {}
    return {
        "schema_version": SCHEMA_VERSION,
        "status": told.get("status"),
        "reason": (told.get("reason") or {}).get("code"),
        "bundle": told.get("bundle"),
        "priority": told.get("priority"),
        "series": [
            {
                "series_instance_uid": uids[one["series_instance_uid"]],
                **{k: one.get(k) for k in ("phase", "slices")},
            }
            for one in told.get("series") or ()
            if one.get("series_instance_uid") in uids
        ],
        "targets": {name: _target(one, uids) for name, one in targets.items()},
        "quality": [_numbers(one, uids) for one in told.get("quality") or ()],
        "reviews": list(_said(reviews)),
    }


def _target(one: Mapping[str, Any], uids: Mapping[str, str]) -> dict[str, Any]:
    return {
        **{k: one.get(k) for k in TARGET},
        "series_instance_uid": uids.get(one.get("series_instance_uid") or ""),
        "key_slices": [
            {
                "sop_instance_uid": uids.get(s.get("sop_instance_uid") or ""),
                **{k: s.get(k) for k in SLICE},
            }
            for s in one.get("key_slices") or ()
        ],
    }


def _numbers(one: Mapping[str, Any], uids: Mapping[str, str]) -> dict[str, Any]:
    """Measurements alone; texts of checks stay behind."""
    kept = {k: v for k, v in one.items() if isinstance(v, int | float | bool)}
    return {"series_instance_uid": uids.get(one.get("series_instance_uid") or ""), **kept}


def _said(reviews: Iterable[Review]) -> Iterable[dict[str, Any]]:
    """The newest word of each reader on each target of an analysis; readers are counted."""
    seen: set[tuple[str, str, str]] = set()
    readers: dict[str, int] = {}
    for said in reviews:
        key = (said.analysis_id, said.target, said.reader)
        number = readers.setdefault(said.reader, len(readers) + 1)
        if key not in seen:
            seen.add(key)
            yield {
                "target": said.target,
                "verdict": said.verdict,
                "score": said.score,
                "agree": said.agree,
                "label": reading.label(said.verdict, said.agree),
                "reader": number,
            }
