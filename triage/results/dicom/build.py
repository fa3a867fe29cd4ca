"""All objects of one report folder: read, build, write."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from triage.files import organs_name
from triage.results.dicom.captures import captures
from triage.results.dicom.common import Analysis
from triage.results.dicom.keys import key_objects
from triage.results.dicom.maps import centre_lps, hot_spot, on_slices, voxel_ml
from triage.results.dicom.parametric import parametric_map
from triage.results.dicom.segments import organ_segments, spot_segments
from triage.results.dicom.source import Slices, Source, read_source
from triage.results.dicom.structured import Spot, spots_report, structured_report
from triage.results.report import REPORT_NAME
from triage.types import TARGETS, Target, Verdict

if TYPE_CHECKING:
    from triage.settings import Settings

FOLDER = "dicom"  # below the report's folder
KINDS = ("sr", "sc", "seg", "pm", "ko")


def write_objects(
    folder: Path,
    images: Path,
    settings: Settings,
    *,
    analysis: Analysis | None = None,
    kinds: frozenset[str] = frozenset(KINDS),
) -> list[Path]:
    """Write the DICOM objects of the report in `folder` into `folder`/dicom; returns their paths.

    `images`: folder or zip with the analysed study, whose headers go through the gate once more.
    What was written before for the same analysis stays as it is, so that a second sending sends
    the same bytes; else an earlier set is replaced as a whole.

    Raises NotAnalysed where `images` is no DICOM study, OSError, ValueError.
    """
    what = analysis or read_analysis(folder)
    done = folder / FOLDER
    name = f"{what.key} {' '.join(sorted(kinds))}"
    mark = done / "complete"
    if mark.is_file() and mark.read_text() == name:
        return sorted(done.glob("*.dcm"))
    part = folder / f".{FOLDER}.{secrets.token_hex(4)}"
    try:
        part.mkdir(parents=True)
        source = read_source(images, settings, _named(what))
        for file, data in build(source, what, folder, kinds):
            data.save_as(part / file, enforce_file_format=True)
        (part / "complete").write_text(name)
        shutil.rmtree(done, ignore_errors=True)
        part.rename(done)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sorted(done.glob("*.dcm"))


def _named(analysis: Analysis) -> frozenset[str]:
    """SOP Instance UIDs of the key slices."""
    answers = (analysis.report.get("targets") or {}).values()
    return frozenset(k["sop_instance_uid"] for a in answers for k in a.get("key_slices") or ())


def read_analysis(folder: Path) -> Analysis:
    """The report in `folder` as an analysis of its own, named after its content."""
    data = (folder / REPORT_NAME).read_bytes()
    return Analysis(json.loads(data), hashlib.sha256(data).hexdigest())


def build(
    source: Source, analysis: Analysis, folder: Path, kinds: frozenset[str] = frozenset(KINDS)
) -> Iterator[tuple[str, Dataset]]:
    """(file name, object), one at a time. The report names maps and pictures below `folder`."""
    spots: dict[Target, Spot] = {}
    number = 0
    for place, (uid, slices) in enumerate(_used(source, analysis), start=1):
        if not slices.frame_of_reference:  # no coordinates without one
            continue
        masks: dict[Target, NDArray[np.bool_]] = {}
        for target, values in _maps(analysis, folder, uid, slices):
            if "pm" in kinds:
                found = parametric_map(slices, analysis, target, values, TARGETS.index(target) + 1)
                if found is not None:
                    yield f"pm_{target.value}.dcm", found
            if _suspected(analysis, target):
                mask = hot_spot(values)
                if mask.any():
                    masks[target] = mask
                    spots[target] = _spot(mask, slices)
        if "seg" in kinds:
            number += 1
            hot = spot_segments(slices, analysis, masks, 2 * number)
            if hot is not None:
                yield f"seg_hot_spots_{place}.dcm", hot
                header = _without_pixels(hot)
                for i, target in enumerate(masks, start=1):
                    spots[target] = replace(spots[target], seg=header, segment=i)
            if (labels := _organs(folder, place, slices)) is not None:
                organs = organ_segments(slices, analysis, labels, 2 * number - 1)
                if organs is not None:
                    yield f"seg_organs_{place}.dcm", organs
    yield from _documents(source, analysis, folder, kinds, spots)


def _documents(
    source: Source,
    analysis: Analysis,
    folder: Path,
    kinds: frozenset[str],
    spots: Mapping[Target, Spot],
) -> Iterator[tuple[str, Dataset]]:
    """Captures, report and key objects."""
    shown: dict[tuple[Target | None, int], Dataset] = {}
    if "sc" in kinds:
        for (target, rank), capture in captures(source, analysis, folder).items():
            name = f"sc_{target.value}_{rank + 1}.dcm" if target else "sc_all.dcm"
            yield name, capture
            shown[target, rank] = _without_pixels(capture)
    report = structured_report(source, analysis, spots)
    yield "sr.dcm", report
    if (regions := spots_report(source, analysis, spots)) is not None:
        yield "sr_hot_spots.dcm", regions
    suspected = [t for t in TARGETS if _suspected(analysis, t)]
    if "ko" in kinds and suspected:
        objects = [report, *(c for (t, _), c in shown.items() if t in suspected)]
        objects += _key_slices(source, analysis, suspected)
        names = ", ".join(t.value for t in suspected)
        yield "ko.dcm", key_objects(source, analysis, objects, f"Suspected: {names}.")


def _used(source: Source, analysis: Analysis) -> list[tuple[str, Slices]]:
    """The analysed series in the order of the report."""
    uids = [s["series_instance_uid"] for s in analysis.report.get("series") or ()]
    return [(uid, source.series[uid]) for uid in uids if uid in source.series]


def _maps(
    analysis: Analysis, folder: Path, uid: str, slices: Slices
) -> Iterator[tuple[Target, NDArray[np.float32]]]:
    answers: Mapping[str, Any] = analysis.report.get("targets") or {}
    for target in TARGETS:
        answer = answers.get(target.value) or {}
        name = answer.get("saliency")
        if name and answer.get("series_instance_uid") == uid and ".." not in Path(name).parts:
            yield target, on_slices(folder / name, slices).astype(np.float32, copy=False)


def _organs(folder: Path, place: int, slices: Slices) -> NDArray[np.uint8] | None:
    path = folder / organs_name(place)
    return on_slices(path, slices).astype(np.uint8) if path.is_file() else None


def _spot(mask: NDArray[np.bool_], slices: Slices) -> Spot:
    return Spot(centre_lps(mask, slices), float(mask.sum()) * voxel_ml(slices), slices)


def _suspected(analysis: Analysis, target: Target) -> bool:
    answer = (analysis.report.get("targets") or {}).get(target.value) or {}
    return bool(answer.get("verdict") == Verdict.SUSPECTED)


def _key_slices(source: Source, analysis: Analysis, targets: Any) -> list[Dataset]:
    """Headers of the key slices of these targets, each instance once."""
    found: dict[str, Dataset] = {}
    for target in targets:
        answer = (analysis.report.get("targets") or {}).get(target.value) or {}
        slices = source.series.get(str(answer.get("series_instance_uid")))
        for key in answer.get("key_slices") or () if slices else ():
            header = slices.headers[slices.at(int(key["index"]))]  # type: ignore[union-attr]
            found.setdefault(str(header.SOPInstanceUID), header)
    return list(found.values())


def _without_pixels(data: Dataset) -> Dataset:
    """What a reference needs: identifiers, patient and study."""
    small = Dataset()
    for element in data:
        if element.VR not in ("OW", "OB", "OF", "SQ"):
            small.add(element)
    return small


def main() -> int:
    """One job as JSON on stdin, in a process of its own: see `triage.service.delivering`.

    Exit code 3 with one line on stdout where there is nothing to write objects about.
    """
    from triage.reasons import NotAnalysed
    from triage.settings import Settings

    job = json.load(sys.stdin)
    os.nice(10)
    analysis = Analysis(
        job["report"], job["key"], job["version"], job["previous"], tuple(job["notes"])
    )
    try:
        write_objects(
            Path(job["folder"]),
            Path(job["images"]),
            Settings(**job["settings"]),
            analysis=analysis,
            kinds=frozenset(job["kinds"]),
        )
    except NotAnalysed as refusal:
        print(refusal.line())
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
