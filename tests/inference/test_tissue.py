"""Median HU of what the localiser found."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

from triage.inference.tissue import tissue_hu
from triage.types import ORGAN_LABEL, Anatomy, Organ


def test_each_tissue_by_its_median_and_none_where_hardly_any_was_found() -> None:
    labels = torch.zeros(1, 40, 40, 24, dtype=torch.uint8)
    hu = torch.full((1, 40, 40, 24), -1000.0)
    parts = {
        Organ.LIVER: (slice(0, 10), 105.0),
        Organ.KIDNEY_RIGHT: (slice(10, 20), 170.0),
        Organ.KIDNEY_LEFT: (slice(20, 36), 190.0),
        Organ.AORTA: (slice(36, 40), 150.0),
    }
    for organ, (where, value) in parts.items():
        labels[0, where] = ORGAN_LABEL[organ]
        hu[0, where] = value
    hu[0, 0, 0, 0] = 3000.0  # a clip
    labels[0, 36:, 8:] = 0  # of the aorta hardly anything
    anatomy = Anatomy(MetaTensor(labels), {}, {})
    assert tissue_hu(MetaTensor(hu), anatomy) == {
        **{"liver": 105.0, "spleen": None, "kidney": 190.0, "aorta": None}
    }
