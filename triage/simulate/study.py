"""Virtual patients on disk, in the layout of the RSNA 2023 Abdominal Trauma Detection data set.

    train_images/<patient_id>/<series_id>/<instance_number>.dcm
    train_images/<patient_id>/truth.json
    train.csv, image_level_labels.csv, train_series_meta.csv
    segmentations/<series_id>.nii.gz        organs, label values of `SEGMENTATION`
    lesions/<series_id>_<target>.nii.gz     1 where that target's injury is

Both kinds of mask lie on the voxels of the DICOM series, index (column, row, slice from the feet).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from triage import __version__
from triage.simulate import tables
from triage.simulate.acquisition import Frame, acquire, draw_frame, on_frame
from triage.simulate.background import Background, load
from triage.simulate.dicom import STORAGES, Exam, Identity, header, write_slice
from triage.simulate.fields import Dice
from triage.simulate.patient import Patient, simulate
from triage.simulate.plan import Case, draw_case
from triage.simulate.scanner import Scanner
from triage.types import ORGAN_LABEL, Organ

SPACING = (1.2, 1.2, 2.5)  # mm, of the simulation; the study's own matrix is finer
THREADS = 1  # fixed: sums of floats depend on how they are split, and so would the bytes
ATTEMPTS = 40  # until an injury found room
STRIDE = 100_000  # patient numbers of one seed

# Label values of the challenge's segmentations; aorta and spine are ours.
SEGMENTATION: dict[Organ, int] = {
    Organ.LIVER: 1,
    Organ.SPLEEN: 2,
    Organ.KIDNEY_LEFT: 3,
    Organ.KIDNEY_RIGHT: 4,
    Organ.BOWEL: 5,
    Organ.AORTA: 6,
    Organ.SPINE: 7,
}
AORTA = SEGMENTATION[Organ.AORTA]
SOLID = (Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_LEFT, Organ.KIDNEY_RIGHT)

Settings = dict[str, Any]


def write_dataset(
    out: Path,
    patients: int,
    seed: int,
    *,
    background: Path | None = None,
    labels: Path | None = None,
    enriched: float | None = None,
    injured: bool | None = None,
    spacing: tuple[float, float, float] | None = None,
    matrix: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Write `patients` virtual patients below `out`; returns their rows of train.csv.

    The same seed and settings give the same bytes. One patient is in memory at a time. A run that
    was interrupted goes on where it stopped: patients that are complete are not made again.

    `background`, `labels`: a CT (NIfTI or folder of DICOM) with organ labels to put the injuries
    into, or labels alone, which are rendered. `enriched`: chance of each target instead of the
    natural prevalence. `injured`: only injured (True) or only uninjured patients (False).
    `spacing`: of the simulation, mm. `matrix`: rows and columns of the images.

    Raises BackgroundError, ValueError for settings that make no sense, and FileExistsError where
    `out` holds other data.
    """
    if not 0 < patients < STRIDE or seed < 0 or matrix < 32:
        raise ValueError(
            f"Expected 1 to {STRIDE - 1} patients, a seed of 0 or more and a matrix of 32 or more, "
            f"got {patients}, {seed} and {matrix}."
        )
    if background is not None and labels is None:
        raise ValueError("A background CT needs the labels of its organs.")
    base = load(background, labels) if labels is not None else None
    settings: Settings = {
        "version": __version__,
        "seed": seed,
        "spacing": list(spacing or SPACING),
        "matrix": matrix,
        "enriched": enriched,
        "injured": injured,
        "background": None if base is None else digest(base),
    }
    numbers = [seed * STRIDE + n for n in range(1, patients + 1)]
    out.mkdir(parents=True, exist_ok=True)
    tables.repair(out, set(numbers))
    rows = []
    for done, number in enumerate(numbers, start=1):
        truth = tables.truth_of(out, number)
        if truth is None:
            with _threads():
                truth = write_patient(out, number, settings, base)
        elif truth["settings"] != settings:
            raise FileExistsError(
                f"Patient {number} in {out} was made with other settings: {truth['settings']} "
                f"instead of {settings}. Choose another folder."
            )
        rows.append({column: truth["train"][column] for column in tables.TRAIN})
        if progress:
            progress(done, patients)
    return rows


def digest(background: Background) -> str:
    """Name of a background's content."""
    sha = hashlib.sha256(background.labels.numpy().tobytes())
    if background.hu is not None:
        sha.update(background.hu.numpy().tobytes())
    return sha.hexdigest()


@contextmanager
def _threads() -> Iterator[None]:
    """The same number of threads on every machine, for the same bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    key = json.dumps([settings, number], sort_keys=True)
    frame = draw_frame(patient.hu, patient.grid, settings["matrix"], dice)
    return Exam(
        who=Identity.draw(number, key, dice),
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
    injured = settings["injured"]
    dice = Dice((number, 1))
    for attempt in range(ATTEMPTS):
        case = Case() if injured is False else draw_case(dice, enriched=settings["enriched"])
        while injured and not case.any_injury:
            case = draw_case(dice, enriched=settings["enriched"])
        patient = simulate(
            (number, 100 + attempt),
            spacing=tuple(settings["spacing"]),
            backgrounds=() if background is None else (background,),
            parametric_share=0.0,
            case=case,
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
