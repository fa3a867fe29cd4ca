"""The list of studies as one plain page without scripts."""

from __future__ import annotations

from html import escape
from typing import Any

from triage.types import DISCLAIMER, TARGETS, Verdict

STYLE = """
body { font: 15px/1.4 sans-serif; margin: 2em; color: #111; background: #fff }
table { border-collapse: collapse } th, td { border: 1px solid #888; padding: .3em .6em }
th { text-align: left; background: #eee } .suspected { background: #ffd9d9; font-weight: bold }
.note { border: 2px solid #a00; padding: .4em .8em; display: inline-block; font-weight: bold }
"""
NONE_YET = "No study yet: send images to the DICOM port, or POST a zip to /api/v1/studies."
# Words for people; none of them may read as a negative that was not given.
WORDS = {
    Verdict.SUSPECTED: "suspected",
    Verdict.NOT_EXCLUDED: "not excluded",
    Verdict.NO_FINDING: "no finding",
    Verdict.UNCERTIFIED: "uncertified",
    Verdict.NOT_ASSESSED: "not assessed",
}


def render(studies: list[dict[str, Any]]) -> str:
    """The page for `studies` (summaries with the names of their overlays), in the order given."""
    heads = ("received (UTC)", "status", "priority", *TARGETS, "overlays", "report")
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    rows = "".join(_row(study) for study in studies)
    empty = (
        ""
        if studies
        else "<p>No study yet: send images to the DICOM port, or POST a zip to /api/v1/studies.</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="refresh" content="10"><title>Abdominal trauma CT triage</title>'
        f"<style>{STYLE}</style></head><body><h1>Abdominal trauma CT triage</h1>"
        f'<p class="note">{escape(DISCLAIMER)}</p>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{empty}</body></html>"
    )


def _row(study: dict[str, Any]) -> str:
    targets = study["targets"]
    cells = [escape(study["received_at"]), _status(study), escape(study["priority"] or "")]
    verdicts = "".join(_verdict(targets.get(target)) for target in TARGETS)
    link = f"/api/v1/studies/{study['id']}"
    pictures = " ".join(
        f'<a href="{escape(link)}/{escape(name)}">{escape(name.rsplit("/", 1)[-1])}</a>'
        for name in study["overlays"]
    )
    plain = "".join(f"<td>{cell}</td>" for cell in cells)
    return (
        f'<tr>{plain}{verdicts}<td>{pictures}</td><td><a href="{escape(link)}">JSON</a></td></tr>'
    )


def _status(study: dict[str, Any]) -> str:
    text = study["status"].replace("_", " ")
    if study["status"] == "analysing":
        text += f": {study['stage']} ({study['fraction']:.0%})"
    if reason := study["reason"]:
        text += f": {reason['code']} - {reason['message']} {reason['fix']}"
    return escape(text)


def _verdict(target: dict[str, Any] | None) -> str:
    if target is None:
        return "<td></td>"
    text = WORDS[Verdict(target["verdict"])]
    if extra := target.get("side") or target.get("reason"):
        text += f" ({extra})"
    return f'<td class="{escape(target["verdict"])}">{escape(text)}</td>'
