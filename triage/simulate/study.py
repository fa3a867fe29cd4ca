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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from triage import __version__
from triage.simulate import protocol as protocols
from triage.simulate import tables
from triage.simulate.background import Background, load, read_names
from triage.simulate.export import Settings, write_patient
from triage.simulate.plan import raked
from triage.simulate.stream import ordered
from triage.types import Phase, Target

SPACING = (1.2, 1.2, 2.5)  # mm, of the simulation; the study's own matrix is finer
THREADS = 1  # fixed: sums of floats depend on how they are split, and so would the bytes
STRIDE = 100_000  # patient numbers of one seed

SEGMENTATION = tables.SEGMENTATION


def write_dataset(
    out: Path,
    patients: int,
    seed: int,
    *,
    background: Path | None = None,
    labels: Path | None = None,
    label_names: Path | None = None,
    enriched: float | None = None,
    prevalence: Mapping[Target, float] | None = None,
    injured: bool | None = None,
    phase: Phase | None = None,
    protocol: str | None = None,
    spacing: tuple[float, float, float] | None = None,
    matrix: int = 512,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Write `patients` virtual patients below `out`; returns their rows of train.csv.

    The same seed and settings give the same bytes, whatever the number of `workers` (processes
    beside this one). Each process has one patient in memory. A run that was interrupted goes on
    where it stopped: patients that are complete are not made again.

    `background`, `labels`: a CT (NIfTI or folder of DICOM) with organ labels to put the injuries
    into, or labels alone, which are rendered; `label_names`: JSON of their ids. `enriched`,
    `prevalence`: instead of the natural prevalence, see `plan.draw_case`. `injured`: only injured
    (True) or only uninjured patients (False). `phase`: that one only. `protocol`: version of a
    frozen configuration to draw from. `spacing`: of the simulation, mm. `matrix`: rows and columns.

    Raises BackgroundError, ValueError for settings that make no sense, and FileExistsError where
    `out` holds other data.
    """
    if not 0 < patients < STRIDE or seed < 0 or matrix < 32 or workers < 0:
        raise ValueError(
            f"Expected 1 to {STRIDE - 1} patients, a seed of 0 or more, a matrix of 32 or more and "
            f"0 workers or more, got {patients}, {seed}, {matrix} and {workers}."
        )
    if spacing is not None and not all(0.5 <= mm <= 10 for mm in spacing):
        raise ValueError(f"Expected a spacing from 0.5 to 10 mm, got {spacing}.")
    _check_cases(enriched, prevalence, injured)
    base = _background(background, labels, label_names, phase)
    frozen = protocols.load(protocol) if protocol else None
    settings: Settings = {
        "version": __version__,
        "seed": seed,
        "spacing": list(spacing or SPACING),
        "matrix": matrix,
        "enriched": enriched,
        "prevalence": {t.value: float(p) for t, p in sorted((prevalence or {}).items())},
        "injured": injured,
        "phase": phase.value if phase else None,
        "protocol": frozen.sha256 if frozen else None,
        "protocol_version": frozen.version if frozen else None,
        "background": None if base is None else digest(base),
    }
    numbers = range(seed * STRIDE + 1, seed * STRIDE + patients + 1)
    out.mkdir(parents=True, exist_ok=True)
    tables.repair(out, set(numbers))
    rows = []
    make = partial(find_patient, out=out, settings=settings, base=base)
    for done, truth in enumerate(ordered(make, numbers, workers), start=1):
        rows.append({column: truth["train"][column] for column in tables.TRAIN})
        if progress:
            progress(done, patients)
    if workers:
        tables.repair(out, set(numbers))  # rows in the order of patients
    return rows


def _check_cases(
    enriched: float | None, prevalence: Mapping[Target, float] | None, injured: bool | None
) -> None:
    """Raise ValueError where no case can be drawn as asked for."""
    if enriched is not None and prevalence:
        raise ValueError("Expected either an enriched rate or a prevalence of targets, got both.")
    if enriched is not None and not 0 <= enriched <= 1:
        raise ValueError(f"Expected an enriched rate from 0 to 1, got {enriched}.")
    table = raked(prevalence or {})
    if injured is False and (enriched or prevalence):
        raise ValueError("Uninjured patients have no prevalence: leave it out.")
    if injured and (enriched == 0 or not any(p for key, p in table.items() if any(key))):
        raise ValueError("Expected injured patients, but every injury has a prevalence of 0.")


def _background(
    ct: Path | None, labels: Path | None, label_names: Path | None, phase: Phase | None
) -> Background | None:
    if ct is not None and labels is None:
        raise ValueError("A background CT needs the labels of its organs.")
    if label_names is not None and labels is None:
        raise ValueError("Names of labels need the labels.")
    if ct is not None and phase is not None:
        raise ValueError("A background CT keeps the phase it was scanned in: leave the phase out.")
    if labels is None:
        return None
    return load(ct, labels, names=read_names(label_names) if label_names else None)


def find_patient(
    number: int, *, out: Path, settings: Settings, base: Background | None
) -> dict[str, Any]:
    """Truth of a patient, made if it is not there. Raises FileExistsError for other settings."""
    truth = tables.truth_of(out, number)
    if truth is None:
        with _threads():
            return write_patient(out, number, settings, base)
    if truth["settings"] != settings:
        raise FileExistsError(
            f"Patient {number} in {out} was made with other settings: {truth['settings']} "
            f"instead of {settings}. Choose another folder."
        )
    return truth


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
