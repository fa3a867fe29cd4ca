"""The audit for people: a CSV of all suspicions and a contact sheet in one HTML file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from triage.audit.suspicions import KINDS, Suspicion
from triage.files import write_atomic
from triage.types import DISCLAIMER

COLUMNS = ("kind", "confidence", "patient", "series", "instance", "detail", "path")
SHOWN = 240  # cards of a kind; the CSV has all
HEADINGS = {
    "unreadable": "Cannot be read",
    "not_abdomen": "Outside the abdomen",
    "body_part": "Body part differs from the header",
    "orientation": "Lies another way than the header says",
    "mirrored": "Left and right exchanged, or situs inversus",
    "phase": "Contrast phase differs from the label",
    "duplicate_patient": "Two patients, one body",
    "duplicate_series": "One series twice",
    "contradiction": "Labels that contradict each other",
    "incomplete_organ": "Organs cut off",
    "coverage": "Short range",
    "quality": "Image quality",
}
_STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1b1f24;--soft:#57606a;--line:#d0d7de}
@media(prefers-color-scheme:dark){:root{--back:#0d1117;--text:#e6edf3;--soft:#9198a1;--line:#30363d}}
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem;
background:var(--back);color:var(--text)}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .6rem}
p,.soft{color:var(--soft)}nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem}nav a{color:inherit}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(168px,1fr));gap:.7rem}
.card{border:1px solid var(--line);border-radius:8px;padding:.5rem;font-size:.82rem;
overflow-wrap:anywhere}
.card img,.none{display:block;width:100%;aspect-ratio:1;background:#000;border-radius:5px;
margin-bottom:.4rem}
.none{display:grid;place-items:center;color:#9198a1}
.bar{height:4px;background:var(--line);border-radius:2px;margin:.3rem 0}
.bar i{display:block;height:4px;border-radius:2px;background:#c2410c}
"""


def write_csv(found: Sequence[Suspicion], path: Path) -> Path:
    """One row a suspicion. A cell that a spreadsheet would run as a formula gets a quote before."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    for suspicion in found:
        writer.writerow({k: _safe(v) for k, v in suspicion.row().items()})
    return write_atomic(path, stream.getvalue().encode("utf-8"))


def _safe(value: object) -> object:
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def write_html(found: Sequence[Suspicion], path: Path, root: Path, looked: int, lost: int) -> Path:
    """The contact sheet; pictures are inside, so that the file can be moved."""
    by_kind = {kind: [s for s in found if s.kind == kind] for kind in KINDS}
    there = {kind: some for kind, some in by_kind.items() if some}
    links = "".join(
        f'<a href="#{kind}">{HEADINGS[kind]} ({len(some)})</a>' for kind, some in there.items()
    )
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Audit</title>'
        f"<style>{_STYLE}</style><h1>Suspected wrong labels</h1>"
        f"<p>{escape(str(root))}: {looked} series looked at, {lost} unreadable, "
        f"{len(found)} suspicions. The bar is the confidence. A suspicion is a reason to look, "
        f"not a correction. {escape(DISCLAIMER)}.</p><nav>{links}</nav>"
    ]
    for kind, some in there.items():
        parts.append(f'<h2 id="{kind}">{HEADINGS[kind]} ({len(some)})</h2><div class="cards">')
        parts += [_card(s) for s in some[:SHOWN]]
        parts.append("</div>")
        if len(some) > SHOWN:
            parts.append(f"<p>{len(some) - SHOWN} more in the CSV.</p>")
    if not found:
        parts.append("<p>Nothing was found.</p>")
    return write_atomic(path, "".join(parts).encode("utf-8"))


def _card(s: Suspicion) -> str:
    picture = (
        f'<img alt="" src="data:image/png;base64,{s.thumb}">'
        if s.thumb
        else '<div class="none">no picture</div>'
    )
    where = f"{s.patient} / {s.series}" + (f" / {s.instance}" if s.instance else "")
    return (
        f'<div class="card" title="{escape(s.path)}">{picture}<b>{escape(where)}</b>'
        f'<div class="bar"><i style="width:{s.confidence:.0%}"></i></div>'
        f"{escape(s.detail)} <span class=soft>{s.confidence:.2f}</span></div>"
    )
