"""The report as Comprehensive 3D SR, TID 1500 (PS3.16 annex A): a group for each target.

    report    TID 1501  the answer: finding, site, verdict, score, cutoffs, certificate, key slices
              TID 1410  where a target is suspected: the centre of its hottest spot, as SCOORD3D
    spots     TID 1411  the same spot as segment of our SEG, with its volume

An answer and its spot share a tracking UID. Always UNVERIFIED and PRELIMINARY; PARTIAL while any
target is not assessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import sr
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset

from triage import __version__
from triage.results.dicom import codes, words
from triage.results.dicom.common import (
    MANUFACTURER,
    MODEL,
    Analysis,
    coded,
    equipment,
    finished,
    in_series,
    own_scheme,
)
from triage.results.dicom.source import Slices, Source
from triage.results.dicom.uids import uid
from triage.types import TARGETS, Target, Verdict


@dataclass(frozen=True)
class Spot:
    """The hottest spot of a suspected target. `centre`: mm, LPS+; `segment`: number in `seg`."""

    centre: NDArray[np.float64]
    volume_ml: float
    slices: Slices
    seg: Dataset | None = None
    segment: int = 0


def structured_report(source: Source, analysis: Analysis, spots: Mapping[Target, Spot]) -> Dataset:
    """The report. It has no image library: pages of acquisition data would stand before it."""
    answers = analysis.report.get("targets") or {}
    groups = [
        _answer(analysis, target, answers.get(target.value) or _no_answer(analysis), source)
        for target in TARGETS
    ]
    groups += [_point(analysis, target, spot) for target, spot in spots.items()]
    evidence = _whole_series(source) or [source.any_header]
    return _document(source, analysis, 1, groups, evidence)


def spots_report(
    source: Source, analysis: Analysis, spots: Mapping[Target, Spot]
) -> Dataset | None:
    """The hottest spots as regions, a document of their own; None where no SEG holds them.

    One document may mix groups of TID 1501 and 1411, but the validator of PixelMed (2022) then
    holds every group against TID 1411.
    """
    groups = [_region(analysis, target, spot) for target, spot in spots.items() if spot.seg]
    if not groups:
        return None
    segs = list({id(s.seg): s.seg for s in spots.values() if s.seg is not None}.values())
    return _document(source, analysis, 2, groups, [*_whole_series(source), *segs])


def _document(
    source: Source,
    analysis: Analysis,
    number: int,
    groups: list[Any],
    evidence: list[Dataset],
) -> Dataset:
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(analysis)),
        procedure_reported=coded(codes.IMAGING),
        imaging_measurements=groups,
        title=coded(codes.REPORT_TITLE),
    )
    _add_words(content[0], analysis)
    before = _predecessor(source, analysis, number) if analysis.previous else None
    report = sr.Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        **in_series(analysis, "sr", number),
        is_complete=_complete(analysis),
        is_final=False,
        is_verified=False,
        previous_versions=[before] if before else None,
        coding_schemes=own_scheme(),
        **equipment(analysis),
    )
    return finished(report, analysis)


def _whole_series(source: Source) -> list[Dataset]:
    """Each image of the series once, as evidence."""
    headers = [h for slices in source.series.values() for h in slices.headers]
    return list({str(h.SOPInstanceUID): h for h in headers}.values())


def _no_answer(analysis: Analysis) -> dict[str, Any]:
    code = (analysis.report.get("reason") or {}).get("code", "WORKER_FAILED")
    return {"verdict": Verdict.NOT_ASSESSED.value, "probability": None, "reason": code}


def _complete(analysis: Analysis) -> bool:
    """Whether every target was judged: else the document is PARTIAL (PS3.3 C.17.2)."""
    answers = analysis.report.get("targets") or {}
    return len(answers) == len(TARGETS) and all(
        a["verdict"] != Verdict.NOT_ASSESSED for a in answers.values()
    )


def _observer(analysis: Analysis) -> Any:
    return sr.ObserverContext(
        observer_type=CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid(analysis.sha256, "device"),
            name=MODEL,
            manufacturer_name=MANUFACTURER,
            model_name=MODEL,
            serial_number=analysis.sha256,
        ),
    )


def _algorithm(analysis: Analysis) -> Any:
    """TID 4019, with the sha256 of the networks that answered."""
    bundle = analysis.bundle
    return sr.AlgorithmIdentification(
        name=MODEL,
        version=__version__,
        family=coded(codes.AI),
        manufacturer=MANUFACTURER,
        parameters=[
            f"bundle={bundle.get('name', 'none')} {bundle.get('version', '')}".strip(),
            f"bundle sha256={analysis.sha256}",
            f"calibrated on={bundle.get('calibrated_on', 'nothing')} patients",
        ],
    )


def _tracking(analysis: Analysis, target: Target, what: str) -> Any:
    """Who reads a document top down meets the verdict before the name of the finding."""
    name = f"{target.value}: {what}"
    return sr.TrackingIdentifier(uid=analysis.uid(f"tracking {target.value}"), identifier=name)


def _sites(target: Target, side: str | None) -> list[Any]:
    laterality = coded(codes.SIDES[side]) if side in codes.SIDES else None
    return [sr.FindingSite(coded(codes.SITES[target]), laterality=laterality)]


def _answer(analysis: Analysis, target: Target, answer: Mapping[str, Any], source: Source) -> Any:
    """TID 1501 of one target."""
    verdict = Verdict(answer["verdict"])
    evaluations = [
        sr.QualitativeEvaluation(coded(codes.VERDICT), coded(codes.VERDICTS[verdict])),
    ]
    if reason := answer.get("reason"):
        code = codes.own(reason, words.reason_text(reason))
        evaluations.append(sr.QualitativeEvaluation(coded(codes.REASON), coded(code)))
    if (grade := answer.get("grade")) in codes.GRADES:
        evaluations.append(
            sr.QualitativeEvaluation(coded(codes.GRADE), coded(codes.GRADES[str(grade)]))
        )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(analysis, target, words.VERDICT_NAMES[verdict]),
        finding_type=coded(codes.FINDINGS[target]),
        algorithm_id=_algorithm(analysis),
        finding_sites=_sites(target, answer.get("side")),
        measurements=_numbers(analysis, answer) or None,
        qualitative_evaluations=evaluations,
        source_images=_key_images(answer, source) or None,
    )
    asked = f"{codes.FINDINGS[target].meaning}?"
    _text(group[0], codes.CERTIFICATE, f"{asked} {words.certificate(analysis, answer)}")
    return group


def _numbers(analysis: Analysis, answer: Mapping[str, Any]) -> list[Any]:
    """Score and cutoffs (TID 300)."""
    if answer.get("probability") is None:
        return []
    real = analysis.score_name == "probability"
    found = [(codes.PROBABILITY if real else codes.SCORE, answer["probability"])]
    for code, name in ((codes.RULE_IN, "rule_in"), (codes.RULE_OUT, "rule_out")):
        if cutoff := answer.get(name):
            found.append((code, cutoff["cutoff"]))
    unit = coded(codes.NO_UNITS)
    return [
        sr.Measurement(name=coded(c), value=float(f"{float(v):.4g}"), unit=unit) for c, v in found
    ]


def _key_images(answer: Mapping[str, Any], source: Source) -> list[Any]:
    slices = source.series.get(str(answer.get("series_instance_uid")))
    if slices is None:
        return []
    found = []
    for key in answer.get("key_slices") or ():
        item = slices.slices[slices.at(int(key["index"]))]
        frames = [item.frame + 1] if item.frames > 1 else None
        found.append(sr.SourceImageForMeasurementGroup(item.sop_class, item.sop_instance, frames))
    return found


def _point(analysis: Analysis, target: Target, spot: Spot) -> Any:
    """TID 1410 with the spot's centre."""
    point = sr.ImageRegion3D(
        graphic_type=sr.GraphicTypeValues3D.POINT,
        graphic_data=np.asarray(spot.centre, dtype=np.float64)[None],
        frame_of_reference_uid=spot.slices.frame_of_reference,
    )
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(analysis, target, "hot spot, centre"),
        referenced_region=point,
        finding_type=coded(codes.HOT_SPOT),
        finding_sites=_sites(target, None),
    )


def _region(analysis: Analysis, target: Target, spot: Spot) -> Any:
    """TID 1411 with our segment and its volume."""
    seg = spot.seg or Dataset()
    volume = sr.Measurement(
        name=coded(codes.VOLUME), value=round(spot.volume_ml, 3), unit=coded(codes.MILLILITRE)
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(analysis, target, "hot spot"),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=spot.segment,
            source_series=sr.SourceSeriesForSegmentation(spot.slices.uid),
        ),
        measurements=[volume],
        finding_type=coded(codes.HOT_SPOT),
        finding_sites=_sites(target, None),
        algorithm_id=_algorithm(analysis),
    )


def _add_words(root: Dataset, analysis: Analysis) -> None:
    """Priority, warnings and disclaimer in a container of Qualitative Evaluations."""
    container = sr.ContainerContentItem(
        name=CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"),
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )
    container.ContentSequence = sr.ContentSequence()
    for line in words.notes(analysis):
        _text(container, codes.NOTE, line)
    root.ContentSequence.append(container)


def _text(parent: Any, name: codes.Code, text: str) -> None:
    parent.ContentSequence.append(
        sr.TextContentItem(
            name=coded(name), value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS
        )
    )


def _predecessor(source: Source, analysis: Analysis, number: int) -> Dataset:
    """The SR of the analysis that this one replaces (Predecessor Documents Sequence)."""
    before = Dataset()
    before.StudyInstanceUID = source.any_header.StudyInstanceUID
    before.SeriesInstanceUID = uid(analysis.previous, "series sr")
    before.SOPInstanceUID = uid(analysis.previous, f"sr {number}")
    before.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.34"
    return before
