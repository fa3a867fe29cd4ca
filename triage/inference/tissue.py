"""How bright the organs are: figures of one series for whoever watches what comes in."""

from __future__ import annotations

from monai.data import MetaTensor

from triage.types import ORGAN_LABEL, Anatomy, Organ

TISSUES: dict[str, tuple[Organ, ...]] = {
    "liver": (Organ.LIVER,),
    "spleen": (Organ.SPLEEN,),
    "kidney": (Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT),
    "aorta": (Organ.AORTA,),
}
STEP = 4  # every fourth voxel in plane (6 mm): the median does not notice
LEAST = 60  # of these voxels


def tissue_hu(grid: MetaTensor, anatomy: Anatomy) -> dict[str, float | None]:
    """Median HU of each tissue on the working grid; None where hardly any of it was found.

    `grid`: float32 (1, X, Y, Z) HU, with the labels of `anatomy` on it.
    """
    hu = grid.as_tensor()[0, ::STEP, ::STEP]  # (X/4, Y/4, Z)
    labels = anatomy.labels.as_tensor()[0, ::STEP, ::STEP].to(hu.device)
    found = labels > 0
    values, kinds = hu[found], labels[found]  # (n,)
    out: dict[str, float | None] = {}
    for name, organs in TISSUES.items():
        mine = kinds == ORGAN_LABEL[organs[0]]
        for organ in organs[1:]:
            mine |= kinds == ORGAN_LABEL[organ]
        tissue = values[mine]
        out[name] = round(float(tissue.median()), 1) if len(tissue) >= LEAST else None
    return out
