"""From slices to the series of one study: group, set aside, split, gate, prefer."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..reasons import NotAnalysed
from ..types import Instance, Series, Study
from . import gate, geometry
from .headers import Slice

# Words of ImageType (values 3 and on) that mean: no slice of HU to judge. PS3.3 C.8.2.1.1.1, and
# what vendors write for projections and dual-energy maps.
_SCOUT = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"}
_NO_HU_SLICE = {
    *("MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "PROJECTION_IMAGE", "VRT", "SSD"),
    *("IODINE", "WATER", "VNC", "VNC_UNIT", "VIRTUAL_NON_CONTRAST", "EFF_Z", "EFFECTIVE Z"),
    *("ELECTRON DENSITY", "MATERIAL_FRACTIONED", "MATERIAL_MODIFIED", "PERFUSION", "DOSE"),
    *("SCREEN SAVE",),
}
_SHARP = ("LUNG", "BONE", "EDGE", "YA", "FC5", "FC8", "B6", "B7", "B8")  # kernels without organs


@dataclass(frozen=True, slots=True)
class GatedSeries(Series):
    """A series that passed the gate: `slices` in order, affine (4, 4) as tuples, index -> RAS+ mm.

    `notes` say what was done on the way (a scout taken out, a duplicate dropped).
    """

    slices: tuple[Slice, ...] = field(default=(), repr=False)
    affine: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A series that did not pass, with the slices that were judged."""

    error: NotAnalysed
    slices: tuple[Slice, ...]
    aside: bool = False  # no candidate from the outset (a scout, a map, coronal)


def select(slices: Iterable[Slice], limits: gate.Limits) -> tuple[list[GatedSeries], list[Refused]]:
    """Groups by study and series, gates each; accepted ones by preference, and the refused."""
    groups: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    for item in slices:
        groups[item.study, item.series].append(item)
    accepted: list[GatedSeries] = []
    refused: list[Refused] = []
    for group in groups.values():
        passed, failed = _judge(group, limits)
        accepted += passed
        refused += failed
    return _by_preference(accepted), refused


def as_study(accepted: Sequence[GatedSeries], refused: Sequence[Refused]) -> Study:
    """One study out of what `select` returned.

    Several studies in one input are refused unless all but one hold nothing but scouts and the
    like: analysing the wrong one, perhaps of a year ago, would be worse than no answer. Raises
    NotAnalysed: MIXED_PATIENT, MIXED_ACQUISITIONS, or the fault of the largest refused series.
    """
    candidates = [r for r in refused if not r.aside]
    members = [s for series in accepted for s in series.slices]
    members += [s for r in candidates for s in r.slices]
    studies = {s.study for s in members}
    if len(studies) > 1:
        code = "MIXED_PATIENT" if len({s.patient for s in members}) > 1 else "MIXED_ACQUISITIONS"
        raise NotAnalysed(code, f"{len(studies)} studies in one input; send one study at a time")
    if not accepted:
        raise worst(refused)
    study = accepted[0].study_instance_uid
    if len({s.patient for s in members}) > 1:
        raise NotAnalysed("MIXED_PATIENT", "two patients in one study", study)
    return Study(study, tuple(accepted), tuple(_warning(r) for r in refused))


def worst(refused: Sequence[Refused]) -> NotAnalysed:
    """The error to report where nothing was accepted: that of the largest candidate."""
    if not refused:
        return NotAnalysed("NOT_CT")
    chief = max(refused, key=lambda r: (not r.aside, len(r.slices)))
    uid = chief.slices[0].study if chief.error.code != "BAD_UID" else None
    return NotAnalysed(chief.error.code, chief.error.detail, uid)


def _warning(refused: Refused) -> str:
    name = refused.slices[0].series
    detail = f" ({refused.error.detail})" if refused.error.detail else ""
    return f"Series {name} was not used: {refused.error.code}{detail}"


def _judge(group: list[Slice], limits: gate.Limits) -> tuple[list[GatedSeries], list[Refused]]:
    notes: list[str] = []
    try:
        kept = _without_duplicates(_without_scouts(group, notes), notes)
        gate.check_slices(kept, limits)
    except NotAnalysed as error:
        return [], [Refused(error, tuple(group), aside=error.code == "NOT_CT")]
    parts = _acquisitions(kept, limits)
    passed: list[GatedSeries] = []
    failed: list[Refused] = []
    for number, part in parts.items():
        text = "" if len(parts) == 1 else f"acquisition {number} of {len(parts)} in the series"
        try:
            passed.append(_gated(gate.check_stack(part, limits), [*notes, *([text] * bool(text))]))
        except NotAnalysed as error:
            failed.append(Refused(error, tuple(part)))
    return passed, failed


def _words(item: Slice) -> set[str]:
    return {value.upper() for value in item.image_type[2:]}


def _without_scouts(group: list[Slice], notes: list[str]) -> list[Slice]:
    kept = [s for s in group if not _words(s) & _SCOUT]
    if not kept:
        raise NotAnalysed("NOT_CT", "nothing but localizer images")
    if len(kept) < len(group):
        notes.append(f"{len(group) - len(kept)} localizer image(s) taken out of the series")
    maps = set.union(*map(_words, kept)) & _NO_HU_SLICE
    if maps:
        raise NotAnalysed("NOT_CT", f"image type {', '.join(sorted(maps))}: no slices of HU")
    if any(s.image_type[1:2] == ("SECONDARY",) and "DOSE" in str(s.facts) for s in kept):
        raise NotAnalysed("NOT_CT", "a dose report")
    return kept


def _without_duplicates(group: list[Slice], notes: list[str]) -> list[Slice]:
    """Drops files that are byte for byte another; refuses one SOP instance in two versions."""
    seen: dict[tuple[str, int], Slice] = {}
    for item in group:
        first = seen.setdefault((item.sop_instance, item.frame), item)
        if first is item or not item.sop_instance:
            continue
        if not filecmp.cmp(Path(first.path), Path(item.path), shallow=False):
            raise NotAnalysed("DUPLICATE_SLICE", "one SOPInstanceUID with two different contents")
    blank = [s for s in group if not s.sop_instance]
    kept = [*(s for s in seen.values() if s.sop_instance), *blank]
    if len(kept) < len(group):
        notes.append(f"{len(group) - len(kept)} identical copies of images dropped")
    return kept


def _acquisitions(slices: list[Slice], limits: gate.Limits) -> dict[int | None, list[Slice]]:
    """One part for each acquisition if acquisitions lie over one another, else one part.

    Acquisitions that follow each other along the body (step and shoot) are one volume; those that
    share a range are contrast phases.
    """
    parts: dict[int | None, list[Slice]] = defaultdict(list)
    for item in slices:
        parts[item.acquisition_number].append(item)
    spans = [np.sort(geometry.heights(part)) for part in parts.values()]
    over = 0
    for i, one in enumerate(spans):
        for other in spans[i + 1 :]:
            inside = ((one >= other[0] - 0.01) & (one <= other[-1] + 0.01)).sum()
            over = max(over, min(int(inside), len(one), len(other)))
    if len(parts) == 1 or over <= 2 or min(map(len, parts.values())) < min(limits.min_slices, 3):
        return {slices[0].acquisition_number: slices}
    return dict(sorted(parts.items(), key=lambda p: -1 if p[0] is None else p[0]))


def _gated(ordered: list[Slice], notes: list[str]) -> GatedSeries:
    first = ordered[0]
    if first.deidentified:
        notes.append("the UIDs were blank: file meta information used instead")
    if any(s.lossy for s in ordered):
        notes.append("lossy compression: HU are approximate")
    if first.photometric == "MONOCHROME1":
        notes.append("MONOCHROME1: concerns display only, HU taken as stored")
    matrix = geometry.affine(ordered)
    return GatedSeries(
        study_instance_uid=first.study,
        series_instance_uid=first.series,
        instances=tuple(Instance(Path(s.path), s.sop_instance, s.instance_number) for s in ordered),
        facts=dict(first.facts),
        simulated=all(s.simulated for s in ordered),
        slices=tuple(ordered),
        affine=tuple(tuple(map(float, row)) for row in matrix),
        notes=tuple(notes),
    )


def _preference(series: GatedSeries) -> tuple[bool, bool, float, int]:
    """Smaller is better: soft kernel, original, long range, many slices."""
    kernel = " ".join(map(str, series.facts.get("ConvolutionKernel", []))).upper()
    text = f"{kernel} {str(series.facts.get('SeriesDescription', '')).upper()}"
    sharp = kernel.startswith(_SHARP) or any(word in text for word in _SHARP[:2])
    derived = series.slices[0].image_type[:1] == ("DERIVED",)
    return sharp, derived, -round(_range_mm(series), -1), -len(series.slices)


def _range_mm(series: GatedSeries) -> float:
    return float(_step_mm(series) * len(series.slices))


def _step_mm(series: GatedSeries) -> float:
    return float(geometry.spacing_of(np.array(series.affine))[2])


def _by_preference(accepted: list[GatedSeries]) -> list[GatedSeries]:
    ordered = sorted(accepted, key=_preference)
    chosen = []
    for place, item in enumerate(ordered, start=1):
        sharp, derived, *_ = _preference(item)
        kind = ("sharp kernel, " if sharp else "") + ("derived" if derived else "original")
        text = (
            f"axial CT, {len(item.slices)} slices of {_step_mm(item):.2f} mm over "
            f"{_range_mm(item):.0f} mm, {kind}; choice {place} of {len(ordered)}"
        )
        chosen.append(replace(item, why_chosen="; ".join([text, *item.notes])))
    return chosen
