"""The page escapes what comes from outside and says nothing negative that was not said."""

from __future__ import annotations

from typing import Any

from triage.service.page import render
from triage.types import DISCLAIMER, TARGETS


def study(**changes: Any) -> dict[str, Any]:
    base = {
        "id": "a" * 32,
        "status": "analysing",
        "received_at": "2026-01-01T00:00:00+00:00",
        "stage": "gate",
        "fraction": 0.25,
        "priority": None,
        "reason": None,
        "targets": {},
        "overlays": [],
    }
    return base | changes


def target(verdict: str, **extra: Any) -> dict[str, Any]:
    return {"verdict": verdict, **extra}


def test_markup_in_a_report_stays_text() -> None:
    reason = {"code": "UNREADABLE", "message": "<script>alert(1)</script>", "fix": '"&'}
    page = render([study(status="not_analysed", reason=reason, stage="<b>")])
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_study_under_way_shows_its_stage_and_no_verdict() -> None:
    page = render([study()])
    assert "analysing: gate (25%)" in page
    assert "no finding" not in page
    assert DISCLAIMER in page


def test_verdicts_sides_and_overlays_are_shown() -> None:
    targets = {t.value: target("uncertified") for t in TARGETS}
    targets["kidney"] = target("suspected", side="left")
    targets["extravasation"] = target("not_assessed", reason="NO_CONTRAST")
    shown = study(status="analysed", priority="stat", targets=targets)
    page = render([shown | {"overlays": ["overlays/kidney_1.png"]}])
    for text in ("suspected (left)", "not assessed (NO_CONTRAST)", "uncertified", "stat"):
        assert text in page
    assert f'href="/api/v1/studies/{"a" * 32}/overlays/kidney_1.png"' in page


def test_an_empty_list_says_what_to_do() -> None:
    assert "POST" in render([])
