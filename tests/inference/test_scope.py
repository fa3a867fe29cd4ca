"""Scope: what cannot be judged is said, never scored as normal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from triage.inference.localise import describe
from triage.inference.scope import judge_scope
from triage.reasons import NotAnalysed
from triage.types import ORGAN_LABEL, Anatomy, Organ, Phase, Target

AFFINE = torch.from_numpy(np.diag([1.5, 1.5, 3.0, 1.0]))
SHAPE = (120, 100, 60)
BOXES: dict[Organ, tuple[slice, slice, slice]] = {
    Organ.LIVER: (slice(70, 110), slice(30, 80), slice(25, 55)),
    Organ.SPLEEN: (slice(10, 30), slice(20, 50), slice(30, 50)),
    Organ.KIDNEY_RIGHT: (slice(75, 95), slice(10, 28), slice(10, 24)),
    Organ.KIDNEY_LEFT: (slice(30, 50), slice(10, 28), slice(10, 24)),
    Organ.BOWEL: (slice(40, 70), slice(40, 80), slice(4, 24)),
    Organ.AORTA: (slice(56, 64), slice(24, 32), slice(0, 60)),
    Organ.SPINE: (slice(50, 70), slice(5, 22), slice(0, 60)),
}


def scene(
    aorta_hu: float = 160.0, leave_out: tuple[Organ, ...] = (), shift: int = 0
) -> tuple[MetaTensor, Anatomy]:
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    hu = torch.full(SHAPE, -100.0)
    for organ, (x, y, z) in BOXES.items():
        if organ in leave_out:
            continue
        moved = slice(max(z.start + shift, 0), min(z.stop + shift, SHAPE[2]))
        labels[x, y, moved] = ORGAN_LABEL[organ]
        hu[x, y, moved] = aorta_hu if organ is Organ.AORTA else 100.0
    return MetaTensor(hu[None], affine=AFFINE), describe(labels, AFFINE)


@pytest.mark.parametrize(
    ("aorta_hu", "phase"),
    [
        (45.0, Phase.PLAIN),
        (310.0, Phase.ARTERIAL),
        (160.0, Phase.PORTAL_VENOUS),
        (105.0, Phase.DELAYED),
    ],
)
def test_the_phase_is_read_from_the_aorta(aorta_hu: float, phase: Phase) -> None:
    scope = judge_scope(*scene(aorta_hu))
    assert scope.phase is phase
    assert scope.aorta_hu == pytest.approx(aorta_hu)


def test_a_whole_abdomen_is_assessed_completely() -> None:
    scope = judge_scope(*scene())
    assert scope.not_assessed == {}
    assert scope.partial == frozenset()
    assert scope.warnings == ()


def test_without_contrast_there_is_no_answer_about_extravasation() -> None:
    scope = judge_scope(*scene(45.0))
    assert scope.not_assessed == {Target.EXTRAVASATION: "NO_CONTRAST"}


def test_a_missing_organ_is_not_assessed() -> None:
    scope = judge_scope(*scene(leave_out=(Organ.SPLEEN,)))
    assert scope.not_assessed == {Target.SPLEEN: "INCOMPLETE_COVERAGE"}
    assert Target.EXTRAVASATION in scope.partial


def test_one_kidney_may_be_missing() -> None:
    scope = judge_scope(*scene(leave_out=(Organ.KIDNEY_LEFT,)))
    assert Target.KIDNEY not in scope.partial
    assert scope.not_assessed == {}


def test_an_organ_cut_off_by_the_end_of_the_scan_is_partial() -> None:
    scope = judge_scope(*scene(shift=14))
    assert Target.LIVER in scope.partial
    assert Target.KIDNEY not in scope.partial


def test_without_any_solid_organ_it_is_no_abdomen() -> None:
    out = (Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_LEFT, Organ.KIDNEY_RIGHT)
    with pytest.raises(NotAnalysed) as refused:
        judge_scope(*scene(leave_out=out))
    assert refused.value.code == "NOT_ABDOMEN"


def test_mirrored_organs_are_warned_of() -> None:
    grid, anatomy = scene()
    labels = anatomy.labels.as_tensor()[0].flip(0)
    scope = judge_scope(grid, describe(labels.contiguous(), AFFINE))
    assert scope.warnings == ("MIRRORED_OR_SITUS_INVERSUS",)
