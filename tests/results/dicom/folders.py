"""A report folder as the analysis writes it, about a small phantom with one bright lesion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import MetaTensor

from tests.dicom import write
from triage.dicom import decode, open_study
from triage.imaging.volume import to_volume
from triage.results.report import write_report
from triage.saliency.nifti import write_nifti
from triage.saliency.overlay import contact_sheet, draw_overlay
from triage.settings import Settings
from triage.types import (
    ORGAN_LABEL,
    TARGETS,
    BundleRef,
    Cutoff,
    Finding,
    KeySlice,
    Organ,
    Phase,
    Priority,
    Report,
    SeriesUsed,
    Status,
    Target,
    Verdict,
    Volume,
)

LESION_HU = 1000  # the phantom's marker is brighter, and nothing else is
BUNDLE = BundleRef("test", "1.2.3", "ab" * 32, "simulated")
WHO: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "MÜLLER^ÉLODIE",
    "PatientID": "P-1",
    "PatientBirthDate": "19700203",
    "PatientSex": "F",
    "AccessionNumber": "ACC-7",
    "StudyID": "S1",
    "StudyTime": "101112",
    "StudyDescription": "CT trauma",
    "ReferringPhysicianName": "DOE^JANE",
    "Laterality": "",
}
POSES: dict[str, tuple[str, float]] = {
    # index axes of the file (column, row, slice) and its tilt about left-right in degrees
    "head_first_supine": ("LPS", 0.0),
    "feet_first": ("RPI", 0.0),
    "slices_downward": ("LPI", 0.0),
    "prone": ("RAS", 0.0),
    "decubitus": ("PRS", 0.0),
    "oblique": ("LPS", 12.0),
    "oblique_feet_first_decubitus": ("ARI", -9.0),
}


@dataclass(frozen=True)
class Case:
    """`lesion_lps`: where the lesion's centre lies, mm; `voxel_mm`: the largest voxel edge."""

    images: Path
    folder: Path
    report: Report
    lesion_lps: np.ndarray
    voxel_mm: float


def case(
    folder: Path, pose: str = "head_first_supine", pictures: bool = True, **options: Any
) -> Case:
    """A series in this pose and its report, with a suspected spleen at the bright lesion."""
    axes, degrees = POSES[pose]
    image = write.phantom()
    if degrees:
        image = write.tilted(image, degrees)
    images = folder / "images"
    write.write_series(images, _turned(image, axes), **{**WHO, **options})
    truth = nibabel.affines.apply_affine(
        image.affine, np.argwhere(np.asarray(image.dataobj) > LESION_HU).mean(axis=0)
    )
    out = folder / "report"
    report = report_of(images, out, pictures)
    return Case(images, out, report, truth * (-1, -1, 1), 7.0)


def _turned(image: nibabel.Nifti1Image, axes: str) -> nibabel.Nifti1Image:
    """Index axes by what they are in the phantom's own frame, oblique or not."""
    straight = nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([7.0, 7.0, 6.0, 1.0]))
    start = nibabel.io_orientation(straight.affine)
    stop = nibabel.orientations.axcodes2ornt(tuple(axes))
    return image.as_reoriented(nibabel.orientations.ornt_transform(start, stop))


def report_of(images: Path, out: Path, pictures: bool = True) -> Report:
    """Read the series as the pipeline does and report a suspected spleen where it is brightest."""
    out.mkdir(parents=True, exist_ok=True)
    with open_study(images, Settings()) as study:
        series = study.series[0]
        volume = to_volume(decode(series, Settings()))
    hu = volume.hu.as_tensor()[0]
    lesion = (hu > LESION_HU).float()
    key = int(lesion.sum((0, 1)).argmax())
    saliency = MetaTensor(
        (lesion - 0.2 * (hu > 500).float() * (1 - lesion))[None], affine=volume.hu.affine
    )
    labels = np.zeros(hu.shape, dtype=np.uint8)
    labels[np.asarray(hu > LESION_HU)] = ORGAN_LABEL[Organ.SPLEEN]
    labels[np.asarray((hu > 500) & (hu <= LESION_HU))] = ORGAN_LABEL[Organ.SPINE]
    nibabel.save(nibabel.Nifti1Image(labels, volume.hu.affine.numpy()), out / "organs_1.nii.gz")
    findings = {}
    for target in TARGETS:
        findings[target] = _finding(target, volume, key, saliency, out, pictures)
    if pictures:
        contact_sheet(
            [out / f.overlays[0] for f in findings.values()], out / "overlays/contact_sheet.png"
        )
    report = Report(
        Status.ANALYSED,
        series.study_instance_uid,
        series=(SeriesUsed(series.series_instance_uid, Phase.PORTAL_VENOUS, hu.shape[2], "only"),),
        bundle=BUNDLE,
        priority=Priority.STAT,
        findings=findings,
        warnings=["LOW_QUALITY: a test"],
    )
    write_report(report, out)
    return report


def _finding(
    target: Target, volume: Volume, key: int, saliency: MetaTensor, out: Path, pictures: bool
) -> Finding:
    series = volume.series.series_instance_uid
    name = f"overlays/{target.value}.png"
    if target is Target.BOWEL:
        finding = Finding(target, Verdict.NOT_ASSESSED, None, series, "INCOMPLETE_COVERAGE")
        if pictures:
            draw_overlay(volume, finding, None, None, out / name, bundle=BUNDLE, score_name="score")
        return Finding(
            target,
            Verdict.NOT_ASSESSED,
            None,
            series,
            "INCOMPLETE_COVERAGE",
            overlays=(name,) if pictures else (),
        )
    suspected = target is Target.SPLEEN
    verdict = Verdict.SUSPECTED if suspected else Verdict.UNCERTIFIED
    instance = volume.instances[key]
    file = f"saliency_{target.value}.nii.gz"
    write_nifti(saliency, out / file)
    finding = Finding(
        target,
        verdict,
        0.9 if suspected else 0.2,
        series,
        rule_out=Cutoff(0.1, 0.95, 59),
        rule_in=Cutoff(0.5, specificity=0.95),
        key_slices=(KeySlice(instance.sop_instance_uid, instance.instance_number, key, 0.8),),
        saliency=file,
        overlays=(name,) if pictures else (),
        grade="high" if suspected else None,
    )
    if pictures:
        draw_overlay(volume, finding, saliency, key, out / name, bundle=BUNDLE, score_name="score")
    return finding
