"""The card of the admin page that says whether what comes in still looks as it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from triage.service.drift.assess import FEWEST, FIRST_FEWEST
from triage.service.records import drift as rows
from triage.service.web.words import Words

if TYPE_CHECKING:
    from triage.service.service import Service

ENDED = 5  # newest warnings that are over


def card(service: Service, words: Words) -> dict[str, Any]:
    """Open warnings in words, then what became of earlier ones; what each reference can say."""
    with service.records.reading() as session:
        opened = [_warning(w.figure, w.against, w, words) for w in rows.open_warnings(session)]
        ended = [
            _warning(w.figure, w.against, w, words) for w in rows.ended_warnings(session, ENDED)
        ]
    latest = service.drift.latest
    return {
        "open": opened,
        "ended": ended,
        "studies": latest.studies,
        "since": latest.since,
        "states": [
            words(
                f"drift.state.{c.state}",
                against=words(f"drift.against.{c.against}"),
                n=c.studies,
                fewest=FEWEST,
                first=FIRST_FEWEST,
            )
            for c in latest.comparisons
        ],
    }


def _warning(figure: str, against: str, row: Any, words: Words) -> dict[str, Any]:
    return {
        "text": sentence(figure, against, row.details, words),
        "begun": row.begun_at,
        "ended": row.ended_at,
    }


def sentence(figure: str, against: str, details: Mapping[str, Any], words: Words) -> str:
    """`Noise: was 12.5 HU, is now 19.0 HU (...)`; of shares, the term that changed most."""
    kind, _, target = figure.partition(".")
    name = words(f"drift.figure.{kind}")
    if target:
        name = f"{name}, {words.known(f'target.{target}', target)}"
    term = details.get("term")
    values = [float(details.get(key) or 0.0) for key in ("then", "now")]
    unit = words(f"drift.unit.{kind}") if not term else "%"
    if term:
        name = f"{name} ({_term(kind, str(term), words)})"
        values = [100 * v for v in values]
    digits = 2 if kind in ("score", "pixel_mm") else 1 if kind != "slices" else 0
    then, now = (f"{v:.{digits}f}" for v in values)
    return words(
        "drift.moved",
        figure=name,
        then=f"{then} {unit}".strip(),
        now=f"{now} {unit}".strip(),
        n=details.get("studies", 0),
        psi=f"{float(details.get('psi') or 0):.2f}",
        against=words(f"drift.against.{against}"),
    )


def _term(kind: str, term: str, words: Words) -> str:
    keys = {"phase": "phase", "verdict": "verdict", "outcome": "status"}
    return words.known(f"{keys.get(kind, kind)}.{term}", term)
