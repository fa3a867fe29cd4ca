"""Scope: is it an abdomen, which organs are whole, is there contrast?"""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage
from torch import Tensor

from triage.reasons import NotAnalysed
from triage.types import (
    ORGAN_LABEL,
    TARGET_ORGANS,
    TARGETS,
    Anatomy,
    Organ,
    Phase,
    Scope,
    Target,
)

# Smallest amount that counts as seeing the organ, ml: well below a child's or a shrunken organ's.
LEAST_ML: dict[Organ, float] = {
    Organ.LIVER: 120,
    Organ.SPLEEN: 15,
    Organ.KIDNEY_RIGHT: 15,
    Organ.KIDNEY_LEFT: 15,
    Organ.BOWEL: 60,
}
# Aortic attenuation by phase, HU (Bae KT, Radiology 2010;256:32-61).
PLAIN_BELOW = 85.0
ARTERIAL_ABOVE = 225.0
DELAYED_BELOW = 125.0
# Brightest of what a kidney encloses, HU: at most 270 in simulated portal venous scans.
EXCRETED_ABOVE = 300.0
CLOSED = 4  # voxels of 3 mm: the hollow of a kidney


def judge_scope(grid: MetaTensor, anatomy: Anatomy) -> Scope:
    """What may be judged on this series. Raises NotAnalysed(NOT_ABDOMEN)."""
    seen = {o for o, least in LEAST_ML.items() if anatomy.volume_ml[o] >= least}
    if not seen & {Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT}:
        raise NotAnalysed("NOT_ABDOMEN", "no liver, spleen or kidney was found")
    phase, aorta_hu = contrast_phase(grid, anatomy)
    not_assessed: dict[Target, str] = {}
    partial = set()
    for target in TARGETS:
        organs = set(TARGET_ORGANS[target])
        if not organs & seen:
            not_assessed[target] = "INCOMPLETE_COVERAGE"
        elif not _covered(target, seen, anatomy):
            partial.add(target)
    if phase in (Phase.PLAIN, Phase.UNKNOWN):
        not_assessed[Target.EXTRAVASATION] = "NO_CONTRAST"
    return Scope(phase, aorta_hu, not_assessed, frozenset(partial), tuple(_warnings(anatomy, seen)))


def _covered(target: Target, seen: set[Organ], anatomy: Anatomy) -> bool:
    """Every organ of the target is there and whole; one kidney may be missing (nephrectomy).

    A kidney of which only an end is in range is cut, not missing.
    """
    kidneys = {Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT}
    organs = set(TARGET_ORGANS[target])
    if not (organs - kidneys) <= seen:
        return False
    return not organs & anatomy.cut and all(anatomy.complete[o] for o in organs & seen)


def contrast_phase(grid: MetaTensor, anatomy: Anatomy) -> tuple[Phase, float | None]:
    """Phase from the median HU of the aorta; without an aorta, from the kidneys or the spleen."""
    hu = grid.as_tensor()[0]
    labels = anatomy.labels.as_tensor()[0]
    aorta = hu[labels == ORGAN_LABEL[Organ.AORTA]]
    if len(aorta) > 600:
        value = float(torch.quantile(aorta[:: max(1, len(aorta) // 20_000)], 0.6))
        if value < PLAIN_BELOW:
            return Phase.PLAIN, value
        if value > ARTERIAL_ABOVE:
            return Phase.ARTERIAL, value
        late = value < DELAYED_BELOW or excretes(hu, labels)
        return (Phase.DELAYED if late else Phase.PORTAL_VENOUS), value
    for organ, limit in (
        (Organ.KIDNEY_RIGHT, 80.0),
        (Organ.KIDNEY_LEFT, 80.0),
        (Organ.SPLEEN, 72.0),
    ):
        tissue = hu[labels == ORGAN_LABEL[organ]]
        if len(tissue) > 2000:
            return (Phase.PORTAL_VENOUS if float(tissue.median()) > limit else Phase.PLAIN), None
    return Phase.UNKNOWN, None


def excretes(hu: Tensor, labels: Tensor) -> bool:
    """Whether contrast fills the renal pelvis: the excretory phase, from about three minutes on.

    hu, labels: (X, Y, Z) on the working grid. Looked at is what a kidney encloses, its hollow
    filled up; bowel and vessels that are labelled do not count.
    """
    for organ in (Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT):
        value = ORGAN_LABEL[organ]
        where = (labels == value).nonzero()
        if len(where) < 2000:
            continue
        low, high = where.amin(0).tolist(), (where.amax(0) + 1).tolist()
        box = tuple(slice(a, b, k) for a, b, k in zip(low, high, (2, 2, 1), strict=True))  # 3 mm
        part = labels[box].numpy()
        own = part == value
        whole = np.pad(own, CLOSED)
        whole = ndimage.binary_closing(whole, iterations=CLOSED)[(slice(CLOSED, -CLOSED),) * 3]
        inside = hu[box].numpy()[whole & (own | (part == 0))]
        if np.percentile(inside, 99.5) > EXCRETED_ABOVE:
            return True
    return False


def _warnings(anatomy: Anatomy, seen: set[Organ]) -> list[str]:
    if not {Organ.LIVER, Organ.SPLEEN} <= seen:
        return []
    labels = anatomy.labels.as_tensor()[0]
    x = {
        organ: float((labels == ORGAN_LABEL[organ]).nonzero()[:, 0].float().mean())
        for organ in (Organ.LIVER, Organ.SPLEEN)
    }
    if x[Organ.LIVER] < x[Organ.SPLEEN]:  # RAS+: the liver has the larger x
        return ["MIRRORED_OR_SITUS_INVERSUS"]
    return []
