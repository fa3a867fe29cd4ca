"""The rows of the worklist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.orm import Session

from triage.service.api.view import summaries
from triage.service.records import lists, studies
from triage.service.records.models import Study
from triage.service.web.people import patient
from triage.service.web.wishes import Wishes
from triage.service.web.words import Words
from triage.types import TARGETS, Priority, Status, Verdict

PAGE = 30  # rows at a time: a wall screen; more come as they are scrolled to
MOST = 200  # rows asked for by their ids
TABS = ("live", "not_applicable", "retrospective")
SORTS = ("urgency", "newest", "oldest", "patient")
SHOWN = tuple(s for s in Status if s is not Status.NOT_APPLICABLE)
# Sign and word beside the colour, so that none of them stands alone (WCAG 1.4.1).
SIGNS: dict[str, str] = {
    Verdict.SUSPECTED: "▲",
    Verdict.NOT_EXCLUDED: "○",
    Verdict.NO_FINDING: "-",
    Verdict.UNCERTIFIED: "~",
    Verdict.NOT_ASSESSED: "?",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of the list; `status`, `priority` and `seen` are empty for all."""

    tab: str = TABS[0]
    status: str = ""
    priority: str = ""
    seen: str = ""  # "", "yes", "no"
    search: str = ""
    sort: str = SORTS[0]
    offset: int = 0

    def checked(self) -> Asked:
        """With what is unknown replaced by the default: an old bookmark must not fail."""
        return replace(
            self,
            tab=self.tab if self.tab in TABS else TABS[0],
            status=self.status if self.status in set(SHOWN) else "",
            priority=self.priority if self.priority in set(Priority) else "",
            seen=self.seen if self.seen in ("yes", "no") else "",
            search="".join(c for c in self.search if c.isprintable()).strip()[:64],
            sort=self.sort if self.sort in SORTS else SORTS[0],
            offset=max(0, min(self.offset, 1_000_000)),
        )

    def query(self) -> studies.Query:
        shown = {
            "live": (SHOWN, False),
            "not_applicable": ((Status.NOT_APPLICABLE,), False),
            "retrospective": (tuple(Status), True),
        }
        statuses, background = shown[self.tab]
        if self.status and Status(self.status) in statuses:
            statuses = (Status(self.status),)
        return studies.Query(
            statuses=statuses,
            priorities=(self.priority,) if self.priority else (),
            search=self.search,
            background=background,
            acknowledged={"yes": True, "no": False}.get(self.seen),
            limit=PAGE,
            offset=self.offset,
        )

    def address(self, **changes: Any) -> str:
        """The address of the same list with these changes."""
        values = {name: getattr(self, name) for name in self.__slots__} | changes
        default = Asked()
        kept = {k: v for k, v in values.items() if v != getattr(default, k)}
        return "/?" + urlencode(kept) if kept else "/"

    @property
    def filtered(self) -> bool:
        return bool(self.status or self.priority or self.seen or self.search)


def page(session: Session, asked: Asked, wishes: Wishes) -> tuple[list[dict[str, Any]], int]:
    """Rows of this page, and how many there are on all."""
    query = asked.query()
    found = lists.ordered(session, query, asked.sort)
    return rows(session, found, asked, wishes), studies.count(session, query)


def by_ids(
    session: Session, ids: Sequence[str], asked: Asked, wishes: Wishes
) -> list[dict[str, Any]]:
    """Rows of those of these studies that belong on the list."""
    found = lists.among(session, asked.query(), ids[:MOST])
    return rows(session, found, asked, wishes)


def counts(session: Session) -> dict[str, int]:
    """Studies on each tab, and what waits for a reader."""
    found = {tab: studies.count(session, Asked(tab=tab).query()) for tab in TABS}
    unseen = Asked(priority=Priority.STAT, seen="no").query()
    found["stat"] = studies.count(session, unseen)
    return found


def rows(
    session: Session, found: Sequence[Study], asked: Asked, wishes: Wishes
) -> list[dict[str, Any]]:
    every = summaries(session, found)
    return [_row(s, v, asked, wishes) for s, v in zip(found, every, strict=True)]


def _row(study: Study, shown: dict[str, Any], asked: Asked, wishes: Wishes) -> dict[str, Any]:
    words = wishes.words
    under_way = shown["status"] in (Status.RECEIVED, Status.ANALYSING)
    return {
        **shown,
        "key": lists.place(study, asked.sort),
        "patient": patient(study, words, wishes.mask),
        "expected": study.expected_instances,
        "seen_by": study.acknowledged_by or "",
        "chips": [chip(t, shown["targets"][t], words) for t in TARGETS if t in shown["targets"]],
        "stage_text": words.known(f"stage.{shown['stage']}", shown["stage"]),
        "why": why(shown["reason"], words),
        "under_way": under_way,
        "took": took(study.received_at, study.flagged_at, study.finished_at, words),
        "alarms": shown["priority"] == Priority.STAT and shown["acknowledged_at"] is None,
    }


def chip(target: str, found: dict[str, Any], words: Words) -> dict[str, Any]:
    """One target's verdict: sign, word, score, and why it was not assessed."""
    verdict, score = found["verdict"], found["probability"]
    reason = found["reason"]
    side = found["side"]
    return {
        "target": target,
        "name": words(f"target.{target}"),
        "verdict": verdict,
        "sign": SIGNS[verdict],
        "word": words(f"verdict.{verdict}"),
        "score": "" if score is None else number(score),
        "side": words.known(f"side.{side}", side) if side else "",
        "reason": words.known(f"reason.{reason}.message", reason) if reason else "",
    }


def number(value: float) -> str:
    """Two digits, three where two would say 0 or 1; as on the overlays."""
    return f"{value:.2f}" if 0.01 <= value <= 0.99 else f"{value:.3f}"


def why(reason: dict[str, str] | None, words: Words) -> dict[str, str] | None:
    """A reason code in the reader's language, with its detail in brackets, and what to do."""
    if reason is None:
        return None
    code, said = reason["code"], reason["message"]
    english = Words("en").known(f"reason.{code}.message")
    detail = said.removeprefix(english).strip() if english else ""
    message = words.known(f"reason.{code}.message", said)
    return {
        "code": code,
        "message": f"{message} {detail}".strip(),
        "fix": words.known(f"reason.{code}.fix", reason["fix"]),
    }


def took(
    received: datetime, flagged: datetime | None, finished: datetime | None, words: Words
) -> str:
    """How long after the first image the flag, or else the answer, was there."""
    if flagged is not None:
        return words("row.flagged_after", time=span((flagged - received).total_seconds(), words))
    if finished is not None:
        return words("row.answered_after", time=span((finished - received).total_seconds(), words))
    return ""


def span(seconds: float, words: Words) -> str:
    """A length of time as people say it."""
    whole = max(0, round(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= 2 * length:
            return words(f"span.{unit}", n=whole // length)
    return words("span.s", n=whole)
