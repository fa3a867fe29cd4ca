"""The CTs to be measured: simulated patients as a scanner would store them, and real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triage.simulate.acquisition import acquire, draw_frame, on_frame
from triage.simulate.background import load
from triage.simulate.fields import Dice
from triage.simulate.patient import simulate
from triage.simulate.plan import Case
from triage.simulate.realism.measure import Image, Mask, Sample
from triage.simulate.scanner import Scanner
from triage.simulate.tissues import Tissue
from triage.types import ORGAN_LABEL, Organ, Phase

ORGANS: dict[str, tuple[Organ, ...]] = {
    "liver": (Organ.LIVER,),
    "spleen": (Organ.SPLEEN,),
    "kidney": (Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT),
    "aorta": (Organ.AORTA,),
}
TISSUES: dict[str, tuple[Tissue, ...]] = {
    "liver": (Tissue.LIVER,),
    "spleen": (Tissue.SPLEEN,),
    "kidney": (
        Tissue.CORTEX_RIGHT,
        Tissue.CORTEX_LEFT,
        Tissue.MEDULLA_RIGHT,
        Tissue.MEDULLA_LEFT,
    ),
    "aorta": (Tissue.AORTA,),
}


def _masks(labels: NDArray[np.uint8], values: dict[str, list[int]]) -> dict[str, Mask]:
    masks = {name: np.isin(labels, wanted) for name, wanted in values.items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


_LABELS = {name: [ORGAN_LABEL[o] for o in organs] for name, organs in ORGANS.items()}


def simulated(
    seed: int,
    phase: Phase,
    spacing: tuple[float, float, float] = (1.2, 1.2, 2.5),
    matrix: int = 512,
) -> Sample:
    """An uninjured parametric patient on the matrix of a study."""
    patient = simulate(seed, spacing=spacing, case=Case(), phase=phase, scanned=False)[0]
    dice = Dice((seed, 2))
    frame = draw_frame(patient.hu, patient.grid, matrix, dice)
    scanner = Scanner(**{**patient.truth["scanner"], "slice_mm": frame.thickness_mm})
    slices = acquire(patient.hu, patient.grid, frame, scanner, dice, real=False)
    stack = np.stack([s.numpy() for s in slices])  # (slice, row, column): z, -y, -x
    labels = on_frame(patient.organs, patient.grid, frame)
    hu: Image = np.ascontiguousarray(stack[:, ::-1, ::-1].transpose(2, 1, 0))
    return Sample(
        f"simulated {seed}",
        phase,
        hu,
        (frame.pixel_mm, frame.pixel_mm, frame.step_mm),
        _masks(labels[:, ::-1, ::-1].transpose(2, 1, 0), _LABELS),
        simulated=True,
    )


def in_memory(seed: int, phase: Phase, spacing: tuple[float, float, float]) -> Sample:
    """An uninjured parametric patient as training sees it."""
    patient = simulate(seed, spacing=spacing, case=Case(), phase=phase)[0]
    masks = _masks(patient.organs.numpy(), _LABELS)
    return Sample(f"in memory {seed}", phase, patient.hu.numpy(), spacing, masks, simulated=True)


def real(ct: Path, labels: Path, phase: Phase) -> Sample:
    """A real CT with the masks of its organs; raises BackgroundError where they do not fit."""
    background = load(ct, labels)
    assert background.hu is not None  # noqa: S101 - a CT was given
    values = {name: [int(t) for t in tissues] for name, tissues in TISSUES.items()}
    return Sample(
        ct.name,
        phase,
        background.hu.numpy(),
        background.spacing,
        _masks(background.labels.numpy(), values),
        simulated=False,
    )
