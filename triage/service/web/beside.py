"""What stands beside the findings of a study: volumes, versions, timeline, files, what was said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from triage.imaging.windows import WINDOWS
from triage.saliency.names import MESHES, SCENE
from triage.service.api.files import folder_of
from triage.service.api.view import iso
from triage.service.records.models import Analysis, Study
from triage.service.records.reading_models import Review
from triage.service.web.listing import SIGNS, number
from triage.service.web.people import tidy
from triage.service.web.words import Words
from triage.types import TARGETS, Organ

# ---- pictures and volumes


def scenes(found: Study, chosen: Analysis | None, report: dict[str, Any]) -> list[dict[str, Any]]:
    """What the viewer can show of each series that was used."""
    if chosen is None:
        return []
    base, query = f"/api/v1/studies/{found.id}", f"?version={chosen.version}"
    volumes, meshes = folder_of(chosen, SCENE), folder_of(chosen, MESHES)
    ids = {s.series_instance_uid: s.id for s in found.series}
    scenes = []
    for place, used in enumerate(report.get("series") or (), start=1):
        series = ids.get(used.get("series_instance_uid"))
        if series is None:
            continue
        own = f"{place}_ct.nii.gz"
        small = f"{base}/scene/{own}{query}" if own in volumes else ""
        maps = {
            t.value: f"{base}/scene/{place}_saliency_{t.value}.nii.gz{query}"
            for t in TARGETS
            if f"{place}_saliency_{t.value}.nii.gz" in volumes
        }
        names = [o.value for o in Organ] + [f"hot_{t.value}" for t in TARGETS]
        surfaces = {
            name: f"{base}/meshes/{place}_{name}.mz3{query}"
            for name in names
            if f"{place}_{name}.mz3" in meshes
        }
        scenes.append(
            {
                "number": place,
                "phase": used.get("phase", ""),
                "slices": used.get("slices", 0),
                "small": small or f"{base}/volumes/{series}?resolution=preview",
                "ready": bool(small),  # else it is made from the images when asked for
                "full": f"{base}/volumes/{series}",
                "maps": maps,
                "meshes": surfaces,
                "glb": f"{base}/meshes/{place}.glb{query}" if f"{place}.glb" in meshes else "",
            }
        )
    return scenes


def windows(words: Words) -> list[dict[str, Any]]:
    """Presets: centre and width as radiologists say them."""
    return [
        {"name": name, "word": words(f"window.{name}"), "low": w.low, "high": w.high}
        | {"title": f"W {w.width:g} L {w.level:g}"}
        for name, w in WINDOWS.items()
    ]


# ---- versions, timeline, files


def compared(finished: Sequence[Analysis], words: Words) -> dict[str, Any]:
    """The verdicts of several versions side by side; `changed`: not what it was before."""
    columns = [
        {
            "version": a.version,
            "current": a.current,
            "status": a.status,
            "finished_at": iso(a.finished_at),
            "bundle": f"{a.bundle_name} {a.bundle_version}".strip(),
            "reason": words.known(f"reason.{a.reason}.message", a.reason) if a.reason else "",
            "images": sum(s.get("slices", 0) for s in (a.report or {}).get("series") or ()),
        }
        for a in finished
    ]
    rows = []
    for target in TARGETS:
        cells: list[dict[str, Any]] = []
        before = None
        for a in finished:
            one = ((a.report or {}).get("targets") or {}).get(target.value)
            verdict = one["verdict"] if one else None
            cells.append(
                {
                    "verdict": verdict,
                    "sign": SIGNS.get(verdict or "", ""),
                    "word": words(f"verdict.{verdict}") if verdict else "",
                    "score": number(one["probability"])
                    if one and one["probability"] is not None
                    else "",
                    "changed": bool(cells) and verdict != before,
                }
            )
            before = verdict
        rows.append({"name": words(f"target.{target.value}"), "cells": cells})
    return {"columns": columns, "rows": rows}


def moment(moment: dict[str, Any], words: Words) -> dict[str, str]:
    what = moment["what"]
    return {
        "at": moment["at"],
        "what": words.known(f"moment.{what.replace(' ', '_')}", what),
        "detail": _detail(moment["detail"], words),
    }


# Details of the timeline as the API says them; what is not known stays as it is.
_IMAGES = re.compile(r"(\d+) images")
_VERSION = re.compile(r"version (\d+)(?:, (\d+) tries)?(?:: (\w+))?")


def _detail(text: str, words: Words) -> str:
    if found := _IMAGES.fullmatch(text):
        return words("row.images", n=int(found[1]))
    if found := _VERSION.fullmatch(text):
        said = [words("versions.version", n=int(found[1]))]
        said += [words("timeline.tries", n=int(found[2]))] if found[2] else []
        said += [words.known(f"status.{found[3]}", found[3])] if found[3] else []
        return ", ".join(said)
    return text


def warning(text: str, words: Words) -> str:
    """Warnings are `CODE: detail` or plain English."""
    code, colon, detail = text.partition(":")
    known = words.known(f"reason.{code}.message") if colon else ""
    return f"{known} ({detail.strip()})" if known and detail.strip() else known or text


def files(
    found: Study,
    chosen: Analysis,
    report: dict[str, Any],
    facts: dict[str, Any],
    words: Words,
) -> list[dict[str, str]]:
    """What can be taken away, with its address."""
    base, query = f"/api/v1/studies/{found.id}", f"?version={chosen.version}"
    rows = [{"word": words("file.study"), "kind": "JSON", "address": base}]
    targets = report.get("targets") or {}
    if any(t.get("overlays") for t in targets.values()):
        sheet = f"{base}/overlays/contact_sheet.png{query}"
        rows.append({"word": words("file.sheet"), "kind": "PNG", "address": sheet})
    for name, one in targets.items():
        if one.get("saliency"):
            text = words("file.saliency", target=words(f"target.{name}"))
            rows.append(
                {"word": text, "kind": "NIfTI", "address": f"{base}/saliency/{name}{query}"}
            )
    for scene in scenes(found, chosen, report):
        if scene["glb"]:
            text = words("file.surfaces", n=scene["number"])
            rows.append({"word": text, "kind": "glTF", "address": scene["glb"]})
    for series in facts["series_list"]:
        if series["modality"] == "CT":
            text = words("file.volume", n=series["instances"], name=tidy(series["description"]))
            rows.append({"word": text, "kind": "NIfTI", "address": series["volume"]})
    return rows


def review(row: Review, every: Sequence[Analysis], words: Words) -> dict[str, Any]:
    version = next((a.version for a in every if a.id == row.analysis_id), 0)
    return {
        "target": words(f"target.{row.target}"),
        "verdict": words(f"verdict.{row.verdict}"),
        "version": version,
        "agree": row.agree,
        "comment": row.comment,
        "reader": row.reader,
        "at": iso(row.reviewed_at),
    }
