"""The patients themselves: prevalence, attenuation of injuries, unusable backgrounds."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from triage.simulate.background import BackgroundError, load
from triage.simulate.fields import Dice
from triage.simulate.patient import Patient, kidney_side, simulate
from triage.simulate.plan import JOINT, Case, draw_case
from triage.types import TARGETS, Phase, Target

SPACING = (3.0, 3.0, 5.0)


def injured(seed: int, phase: Phase = Phase.PORTAL_VENOUS, **grades: int) -> Patient:
    (patient,) = simulate(seed, spacing=SPACING, case=Case(**grades), phase=phase, scanned=False)
    return patient


def test_prevalence_is_that_of_the_challenge() -> None:
    cases = [draw_case(Dice((number, 1))) for number in range(3000)]
    total = sum(JOINT.values())
    for i, target in enumerate(TARGETS):
        for grade in (1, 2):
            expected = sum(n for key, n in JOINT.items() if key[i] == grade) / total
            assert np.mean([c.grade(target) == grade for c in cases]) == pytest.approx(
                expected, abs=0.02
            )
    expected = 1 - JOINT[(0, 0, 0, 0, 0)] / total
    assert np.mean([c.any_injury for c in cases]) == pytest.approx(expected, abs=0.02)


def test_prevalence_of_the_plan_is_that_of_the_real_labels(shared: Path) -> None:
    table = np.genfromtxt(shared / "rsna2023" / "train.csv", delimiter=",", names=True)
    total = sum(JOINT.values())
    for i, target in enumerate(TARGETS):
        name = f"{target}_healthy"
        expected = sum(n for key, n in JOINT.items() if key[i]) / total
        assert 1 - table[name].mean() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_blood_has_the_attenuation_of_blood(seed: int) -> None:
    patient = injured(seed, liver=1, spleen=1)
    assert patient.masks
    for target in patient.masks:
        assert 20 < float(patient.hu[patient.masks[target]].median()) < 75


@pytest.mark.parametrize("phase", [Phase.ARTERIAL, Phase.PORTAL_VENOUS, Phase.DELAYED])
def test_a_blush_is_brighter_than_its_surroundings(phase: Phase) -> None:
    patient = injured(4, phase, extravasation=1)
    mask = patient.masks[Target.EXTRAVASATION].numpy()
    around = binary_dilation(mask, iterations=2) & ~mask
    hu = patient.hu.numpy()
    assert 85 <= np.median(hu[mask]) <= 370  # Shanmuganathan, Radiology 2004;231:207-214
    assert np.median(hu[mask]) > np.median(hu[around]) + 25


def test_without_contrast_there_is_no_blush() -> None:
    patient = injured(4, Phase.PLAIN, extravasation=1)
    assert patient.grades[Target.EXTRAVASATION] == 0
    assert Target.EXTRAVASATION not in patient.masks


def test_the_side_of_a_kidney_injury_is_the_side_of_its_mask() -> None:
    patient = injured(6, kidney=2)
    sides = {i["organ"].removeprefix("kidney_") for i in patient.truth["lesions"] if i["target"]}
    assert kidney_side(patient) == (sides.pop() if len(sides) == 1 else "both")


def test_the_healthy_have_no_lesion() -> None:
    patient = injured(8)
    assert not patient.masks and not any(patient.grades.values())


def test_same_seed_same_patient_and_unscanned_is_the_same_anatomy() -> None:
    one, two, other = (simulate(seed, spacing=(6.0, 6.0, 10.0))[0] for seed in (5, 5, 6))
    assert torch.equal(one.hu, two.hu)
    assert one.hu.shape != other.hu.shape or not torch.equal(one.hu, other.hu)
    (ideal,) = simulate(5, spacing=(6.0, 6.0, 10.0), scanned=False)
    assert torch.equal(ideal.organs, one.organs) and ideal.truth == one.truth


def nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(data, np.diag([3.0, 3, 5, 1]) if affine is None else affine), path)
    return path


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    return nifti(tmp_path / "ct.nii.gz", np.full((60, 50, 40), 40, np.int16))


def test_background_of_another_shape(ct: Path, tmp_path: Path) -> None:
    labels = nifti(tmp_path / "labels.nii.gz", np.full((60, 50, 39), 4, np.uint8))
    with pytest.raises(BackgroundError, match=r"same shape.*40.*39"):
        load(ct, labels)


def test_background_in_another_place(ct: Path, tmp_path: Path) -> None:
    moved = np.diag([3.0, 3, 5, 1])
    moved[2, 3] = 300
    labels = nifti(tmp_path / "labels.nii.gz", np.full((60, 50, 40), 4, np.uint8), moved)
    with pytest.raises(BackgroundError, match="different places"):
        load(ct, labels)


def test_background_with_unknown_labels(ct: Path, tmp_path: Path) -> None:
    data = np.full((60, 50, 40), 4, np.uint8)
    data[:5] = 213
    with pytest.raises(BackgroundError, match=r"Unknown label 213 in labels\.nii\.gz"):
        load(ct, nifti(tmp_path / "labels.nii.gz", data))


def test_background_without_an_organ(ct: Path, tmp_path: Path) -> None:
    data = np.zeros((60, 50, 40), np.uint8)
    data[10:20] = 52  # aorta
    for empty in (data, np.zeros_like(data)):
        with pytest.raises(BackgroundError, match="No liver, spleen or kidney"):
            load(ct, nifti(tmp_path / "labels.nii.gz", empty))


def test_labels_alone_need_the_whole_anatomy(tmp_path: Path) -> None:
    labels = nifti(tmp_path / "labels.nii.gz", np.full((60, 50, 40), 4, np.uint8))
    with pytest.raises(BackgroundError, match="too few to render"):
        load(None, labels)
