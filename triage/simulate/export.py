"""One virtual patient as a DICOM series with masks and truth, in the layout of `study`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from triage import __version__
from triage.simulate import protocol as protocols
from triage.simulate import tables
from triage.simulate.acquisition import STEPS, Frame, acquire, draw_frame, on_frame
from triage.simulate.background import Background
from triage.simulate.dicom import STORAGES, Exam, Identity, header, write_slice
from triage.simulate.fields import Dice
from triage.simulate.patient import Patient, simulate
from triage.simulate.plan import Case, draw_case
from triage.simulate.scanner import Scanner
from triage.simulate.tables import SEGMENTATION
from triage.types import ORGAN_LABEL, Organ, Phase, Target

ATTEMPTS = 40  # until an injury found room
AORTA = SEGMENTATION[Organ.AORTA]
SOLID = (Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_LEFT, Organ.KIDNEY_RIGHT)

Settings = dict[str, Any]


def write_patient(
    out: Path, number: int, settings: Settings, background: Background | None
) -> dict[str, Any]:
    """Make one patient and publish it when it is complete. Returns its truth."""
    patient = draw_patient(number, settings, background)
    real = background is not None and background.hu is not None
    dice = Dice((number, 2))
    exam = draw_exam(patient, number, settings, dice)
    series = number * 10 + 1
    part = out / "train_images" / f".{number}.part"
    shutil.rmtree(part, ignore_errors=True)
    (part / str(series)).mkdir(parents=True)
    organs = on_frame(_segmentation(patient), patient.grid, exam.frame)
    save_mask(out / "segmentations" / f"{series}.nii.gz", organs, exam.frame)
    aorta = _write_images(part / str(series), patient, exam, organs == AORTA, dice, real=real)
    truth = describe(patient, exam, settings)
    truth["images"] = _write_lesions(out / "lesions", series, patient, exam)
    truth["train"] = tables.train_row(number, patient.grades)
    truth["series"] = tables.series_row(number, series, aorta, _incomplete(patient))
    text = json.dumps(truth, indent=1, sort_keys=True, default=float)
    (part / "truth.json").write_text(text + "\n")
    tables.publish(out, part, truth)
    return truth


def draw_exam(patient: Patient, number: int, settings: Settings, dice: Dice) -> Exam:
    """Identity, field of view and way of storage."""
    who = Identity.draw(number, json.dumps([settings, number], sort_keys=True), dice)
    person = patient.truth["person"]
    if person:
        who = replace(who, sex="F" if person["female"] else "M")
    version = settings["protocol_version"]
    steps = protocols.load(version).steps if version else STEPS
    frame = draw_frame(patient.hu, patient.grid, settings["matrix"], dice, steps)
    return Exam(
        who=who,
        frame=frame,
        scanner=Scanner(**{**patient.truth["scanner"], "slice_mm": frame.thickness_mm}),
        phase=patient.phase,
        storage=STORAGES[dice.integer(0, len(STORAGES) - 1)],
        head_first=dice.chance(0.8),
    )


def describe(patient: Patient, exam: Exam, settings: Settings) -> dict[str, Any]:
    """What truth.json says, but for the rows of the tables."""
    frame, who = exam.frame, exam.who
    return {
        **patient.truth,
        "simulated": True,
        "scanner": vars(exam.scanner),
        "patient_id": who.number,
        "series_id": who.number * 10 + 1,
        "settings": settings,
        "seed": settings["seed"],
        "version": __version__,
        "uid": {what: who.uid(what) for what in ("study", "series", "frame of reference")},
        "matrix": [frame.matrix, frame.matrix, frame.slices],
        "spacing_mm": [frame.pixel_mm, frame.pixel_mm, frame.step_mm],
        "thickness_mm": frame.thickness_mm,
        "known_organs": [o.value for o in patient.known],
        "segmentation_labels": {o.value: v for o, v in SEGMENTATION.items()},
    }


def draw_patient(number: int, settings: Settings, background: Background | None) -> Patient:
    """The patient before the scanner; draws again until it is as `settings["injured"]` says."""
    injured, version = settings["injured"], settings["protocol_version"]
    prevalence = {Target(name): rate for name, rate in settings["prevalence"].items()}
    draw = partial(draw_case, enriched=settings["enriched"], prevalence=prevalence)
    dice = Dice((number, 1))
    for attempt in range(ATTEMPTS):
        case = Case() if injured is False else draw(dice)
        while injured and not case.any_injury:
            case = draw(dice)
        patient = simulate(
            (number, 100 + attempt),
            spacing=tuple(settings["spacing"]),
            backgrounds=() if background is None else (background,),
            parametric_share=0.0,
            case=case,
            phase=Phase(settings["phase"]) if settings["phase"] else None,
            protocol=protocols.load(version) if version else None,
            scanned=False,
        )[0]
        if not injured or any(patient.grades.values()):
            return patient
    raise ValueError(
        f"No injury found room in {ATTEMPTS} attempts: the background shows too little of the "
        "organs that its labels name."
    )


def _segmentation(patient: Patient) -> torch.Tensor:
    """Localiser labels -> label values of the data set."""
    lookup = torch.zeros(256, dtype=torch.uint8)
    for organ, value in SEGMENTATION.items():
        lookup[ORGAN_LABEL[organ]] = value
    return lookup[patient.organs.int()]


def _incomplete(patient: Patient) -> bool:
    """Whether an end of the scan cuts a solid organ off, or leaves it out."""
    for organ in SOLID:
        if organ not in patient.known:
            continue
        line = (patient.organs == ORGAN_LABEL[organ]).any(0).any(0)
        if bool(line[0]) or bool(line[-1]) or not bool(line.any()):
            return True
    return False


def _write_images(
    folder: Path,
    patient: Patient,
    exam: Exam,
    aorta: NDArray[np.bool_],
    dice: Dice,
    *,
    real: bool,
) -> float | None:
    """Write all slices; returns the mean HU of the aorta, or None where it is not labelled."""
    base = header(exam, dice)
    outside = ~exam.frame.circle.numpy()
    if exam.storage.padding is None and dice.chance(0.3):  # the corners show the room
        outside[:] = False
    total, count = 0, 0
    planes = acquire(patient.hu, patient.grid, exam.frame, exam.scanner, dice, real=real)
    for k, plane in enumerate(planes):
        hu = plane.numpy().round().astype(np.int16)
        hu[outside] = -1024
        write_slice(folder, base, exam, k, hu)
        total += int(hu[aorta[k]].sum(dtype=np.int64))
        count += int(aorta[k].sum())
    return total / count if count else None


def _write_lesions(
    folder: Path, series: int, patient: Patient, exam: Exam
) -> list[tuple[int, str]]:
    """Write the lesion masks; returns instance numbers and names for image_level_labels.csv."""
    found = []
    for target, mask in sorted(patient.masks.items()):
        lesion = on_frame(mask, patient.grid, exam.frame)
        save_mask(folder / f"{series}_{target.value}.nii.gz", lesion, exam.frame)
        if target in tables.IMAGE_LABEL:
            slices = np.flatnonzero(lesion.any(axis=(1, 2)))
            found += [(exam.number(int(k)), tables.IMAGE_LABEL[target]) for k in slices]
    return sorted(found)


def save_mask(path: Path, mask: NDArray[np.uint8], frame: Frame) -> None:
    """A mask (slice, row, column) as compressed NIfTI (column, row, slice)."""
    path.parent.mkdir(exist_ok=True)
    image = nib.Nifti1Image(mask.T, frame.affine)
    image.header.set_xyzt_units("mm")
    part = path.with_name(f".{path.name}")
    nib.save(image, part)
    part.replace(path)
