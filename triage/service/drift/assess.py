"""The newest studies against two references.

- **bundle**: what the patients looked like that the bundle was calibrated on, where the bundle has
  that file (`results.figures.INPUTS`; older ones have none, which is said).
- **first_weeks**: this service's own first studies: of all times for what the images are like, of
  this bundle for scores and verdicts, which follow the networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy.orm import Session

from triage.decision.drift import Shift, drifted, numbers, shares
from triage.nets.bundle import BundleError, find_bundle, manifest_sha256, read_bytes, read_manifest
from triage.results.figures import (
    ANSWER_NUMBERS,
    ANSWER_SHARES,
    INPUT_NUMBERS,
    INPUT_SHARES,
    INPUTS,
    NUMBERS,
    SHARES,
    Many,
)
from triage.service.records import drift as rows
from triage.service.records.drift import Row

WEEK = timedelta(days=7)
LONGEST = timedelta(days=28)  # how far back the newest studies may lie where a week has too few
FEWEST = 30  # studies of now; below, nothing is said
FIRST = timedelta(days=28)  # length of the first weeks ...
FIRST_FEWEST = 100  # ... and until there are so many
MOST = 5000  # studies of now, and of the first weeks, that are looked at
AGAINST = ("bundle", "first_weeks")
# Why a reference says nothing; the pages have words for each.
STATES = ("ok", "no_reference", "unreadable", "learning", "too_few")


@dataclass(frozen=True)
class Moved:
    """One figure. `then`, `now`: median of a number; share of `term` otherwise."""

    figure: str
    shift: Shift
    warn: bool
    then: float
    now: float
    studies: int
    term: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "figure": self.figure,
            "psi": round(self.shift.psi, 4),
            "p": float(f"{self.shift.p:.3g}"),
            "drifted": self.warn,
            "term": self.term or None,
            "then": round(self.then, 4),
            "now": round(self.now, 4),
            "studies": self.studies,
        }


@dataclass(frozen=True)
class Comparison:
    """With one reference. `state`: one of `STATES`; `studies`: behind the reference."""

    against: str
    state: str
    studies: int = 0
    figures: tuple[Moved, ...] = ()


@dataclass(frozen=True)
class Assessment:
    """`studies` newest ones, the oldest of them from `since`."""

    studies: int = 0
    since: datetime | None = None
    comparisons: tuple[Comparison, ...] = field(default=())


class BundleInputs:
    """The bundle's identity and reference, read again when the bundle changes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._known: tuple[str, str, Many | None] = ("", "no_reference", None)

    def read(self) -> tuple[str, str, Many | None]:
        """sha256 of the bundle, state, reference."""
        try:
            folder = find_bundle(self.name)
            sha = manifest_sha256(folder)
            if sha == self._known[0]:
                return self._known
            manifest = read_manifest(folder)
            if INPUTS not in manifest.files:
                self._known = (sha, "no_reference", None)
            else:
                self._known = (sha, "ok", Many.from_bytes(read_bytes(folder, INPUTS, manifest)))
        except (BundleError, OSError, ValueError):
            return "", "unreadable", None
        return self._known


def assess(
    session: Session, bundle: BundleInputs, at: datetime, own_since: date | None = None
) -> Assessment:
    """Everything compared, as of `at`. `own_since`: studies before that day are no reference."""
    sha, state, reference = bundle.read()
    lately = rows.newest(session, MOST, at - LONGEST)
    week = [r for r in lately if r.at >= at - WEEK]
    now = week if len(week) >= FEWEST else lately[:FEWEST]
    mine = [r for r in now if r.bundle_sha256 == sha]
    since = min((r.at for r in now), default=None)
    start = datetime.combine(own_since, time(), UTC) if own_since else None
    inputs = _first(session, start, None, since)
    answers = _first(session, start, sha, since)
    compared = (
        _compare("bundle", state, reference, reference, now, mine),
        _compare("first_weeks", "ok" if inputs else "learning", inputs, answers, now, mine),
    )
    return Assessment(len(now), since, compared)


def _first(
    session: Session, start: datetime | None, bundle: str | None, before: datetime | None
) -> Many | None:
    """The first weeks, once there are enough, and they are over before the newest studies begin."""
    found = rows.oldest(session, MOST, start, bundle)
    if len(found) < FIRST_FEWEST:
        return None
    end = max(found[0].at + FIRST, found[FIRST_FEWEST - 1].at)
    first = [r for r in found if r.at <= end]
    if before is not None and first[-1].at >= before:
        return None
    return Many.of(r.figures for r in first)


def _compare(
    against: str,
    state: str,
    inputs: Many | None,
    answers: Many | None,
    now: Sequence[Row],
    mine: Sequence[Row],
) -> Comparison:
    known = inputs or answers
    if state != "ok" or known is None:
        return Comparison(against, state if state != "ok" else "learning")
    if len(now) < FEWEST:
        return Comparison(against, "too_few", known.studies)
    pairs = (
        (inputs, Many.of(r.figures for r in now), INPUT_NUMBERS, INPUT_SHARES),
        (answers, Many.of(r.figures for r in mine), ANSWER_NUMBERS, ANSWER_SHARES),
    )
    found: list[Moved] = []
    for then, new, of_numbers, of_shares in pairs:
        if then is not None:
            found += [m for n in of_numbers if (m := _number(n, then, new))]
            found += [m for n in of_shares if (m := _share(n, then, new))]
    far = drifted({m.figure: m.shift for m in found})
    moved = tuple(
        Moved(m.figure, m.shift, m.figure in far, m.then, m.now, m.studies, m.term) for m in found
    )
    return Comparison(against, "ok", known.studies, moved)


def _number(name: str, then: Many, now: Many) -> Moved | None:
    old, new = then.numbers.get(name), now.numbers.get(name)
    if not old or not new or len(new) < FEWEST:
        return None
    shift = numbers(old, then.sizes[name], new)
    return Moved(name, shift, False, _median(old), _median(new), len(new))


def _median(values: Sequence[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _share(name: str, then: Many, now: Many) -> Moved | None:
    old, new = then.counts.get(name), now.counts.get(name)
    if not old or not new or sum(new.values()) < FEWEST:
        return None
    p = {t: n / sum(old.values()) for t, n in old.items()}
    q = {t: n / sum(new.values()) for t, n in new.items()}
    term = max({*p, *q}, key=lambda t: (abs(q.get(t, 0) - p.get(t, 0)), t))
    shift = shares(old, new)
    return Moved(name, shift, False, p.get(term, 0.0), q.get(term, 0.0), sum(new.values()), term)


def weeks(found: Sequence[Row]) -> list[dict[str, Any]]:
    """Statistics by ISO week (ISO 8601), newest first: studies, medians, shares."""
    by_week: dict[str, list[Row]] = {}
    for row in found:
        year, week, _ = row.at.isocalendar()
        by_week.setdefault(f"{year}-W{week:02d}", []).append(row)
    return [_week(name, by_week[name]) for name in sorted(by_week, reverse=True)]


def _week(name: str, found: Sequence[Row]) -> dict[str, Any]:
    many = Many.of(r.figures for r in found)
    return {
        "week": name,
        "studies": many.studies,
        "medians": {n: round(_median(many.numbers[n]), 4) for n in NUMBERS if many.numbers.get(n)},
        "shares": {
            n: {t: round(c / sum(many.counts[n].values()), 4) for t, c in many.counts[n].items()}
            for n in SHARES
            if many.counts.get(n)
        },
    }
