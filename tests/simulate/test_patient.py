"""The patients themselves: attenuation of injuries, settings, unusable backgrounds."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from triage.simulate.background import BackgroundError, load, read_names
from triage.simulate.patient import Patient, kidney_side, simulate
from triage.simulate.plan import Case
from triage.simulate.protocol import RESERVED
from triage.simulate.protocol import load as load_protocol
from triage.simulate.tissues import Tissue
from triage.types import Phase, Target

SPACING = (3.0, 3.0, 5.0)


def injured(seed: int, phase: Phase = Phase.PORTAL_VENOUS, **grades: int) -> Patient:
    (patient,) = simulate(seed, spacing=SPACING, case=Case(**grades), phase=phase, scanned=False)
    return patient


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


def test_a_test_protocol_keeps_its_seeds_to_itself() -> None:
    coarse = {"spacing": (8.0, 8.0, 12.0), "case": Case()}
    with pytest.raises(ValueError, match="reserved for the test protocol"):
        simulate((RESERVED, 1), **coarse)
    (free,), (held,) = simulate(1, **coarse), simulate(1, **coarse, protocol=load_protocol())
    assert free.truth["protocol"] is None and held.truth["protocol"] == load_protocol().version
    assert free.hu.shape != held.hu.shape or not torch.equal(free.hu, held.hu)


def test_phase_is_the_one_asked_for_and_never_plain_by_itself() -> None:
    coarse = {"spacing": (8.0, 8.0, 12.0), "case": Case(), "scanned": False}
    assert simulate(1, phase=Phase.PLAIN, **coarse)[0].phase is Phase.PLAIN
    assert simulate(1, phases={Phase.DELAYED: 1.0}, **coarse)[0].phase is Phase.DELAYED
    with pytest.raises(ValueError, match="known phase"):
        simulate(1, phase=Phase.UNKNOWN, **coarse)
    with pytest.raises(ValueError, match="its own phases"):
        simulate(1, phases={Phase.DELAYED: 1.0}, protocol=load_protocol(), **coarse)


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


@pytest.mark.parametrize("wrong", ["moved", "finer"])
def test_background_in_another_place(ct: Path, tmp_path: Path, wrong: str) -> None:
    affine = np.diag([3.0, 3, 5, 1])
    if wrong == "moved":
        affine[2, 3] = 300
    else:
        affine[2, 2] = 4.5
    labels = nifti(tmp_path / "labels.nii.gz", np.full((60, 50, 40), 4, np.uint8), affine)
    with pytest.raises(BackgroundError, match="different places"):
        load(ct, labels)


def test_background_with_unknown_labels(ct: Path, tmp_path: Path) -> None:
    data = np.full((60, 50, 40), 4, np.uint8)
    data[:5] = 213
    with pytest.raises(BackgroundError, match=r"Unknown label 213 in labels\.nii\.gz"):
        load(ct, nifti(tmp_path / "labels.nii.gz", data))


def test_background_with_names_of_its_own(ct: Path, tmp_path: Path) -> None:
    data = np.zeros((60, 50, 40), np.uint8)
    data[30:55, 10:40, 5:35] = 77
    labels = nifti(tmp_path / "labels.nii.gz", data)
    names = tmp_path / "names.json"
    names.write_text('{"77": "liver"}')
    found = load(ct, labels, names=read_names(names))
    assert found.known == frozenset({Tissue.LIVER})
    data[0, 0, 0] = 78
    with pytest.raises(BackgroundError, match=r"Unknown label 78 .*expected ids 77 as in"):
        load(ct, nifti(labels, data), names=read_names(names))
    for text, message in (
        ('{"1": "hepar"}', "Unknown label names in names.json: hepar"),
        ('["liver"]', "no table of label names"),
        ("liver", "no table of label names"),
    ):
        names.write_text(text)
        with pytest.raises(BackgroundError, match=message):
            read_names(names)


def test_background_without_an_organ(ct: Path, tmp_path: Path) -> None:
    data = np.zeros((60, 50, 40), np.uint8)
    data[10:20] = 52  # aorta
    for empty in (data, np.zeros_like(data)):
        with pytest.raises(BackgroundError, match="No liver, spleen or kidney"):
            load(ct, nifti(tmp_path / "labels.nii.gz", empty))


@pytest.mark.parametrize("hu", [-1000, 900])
def test_labels_that_lie_where_no_organ_is(tmp_path: Path, hu: int) -> None:
    ct = nifti(tmp_path / "ct.nii.gz", np.full((60, 50, 40), hu, np.int16))
    labels = nifti(tmp_path / "labels.nii.gz", np.full((60, 50, 40), 4, np.uint8))
    with pytest.raises(BackgroundError, match=f"do not fit.*median of {hu} HU"):
        load(ct, labels)


@pytest.mark.parametrize(("organ", "side"), [("spleen", "right"), ("liver", "left")])
def test_an_organ_on_the_wrong_side(ct: Path, tmp_path: Path, organ: str, side: str) -> None:
    """A liver mask with id 1 is no spleen, and mirrored labels are refused."""
    data = np.zeros((60, 50, 40), np.uint8)
    data[slice(35, 55) if side == "right" else slice(5, 25)] = 9
    labels = nifti(tmp_path / "labels.nii.gz", data)
    with pytest.raises(BackgroundError, match=f"The {organ} of .* lies on the patient's {side}"):
        load(ct, labels, names={9: organ})


def test_labels_that_are_no_label_map(ct: Path, tmp_path: Path) -> None:
    for data in (np.full((60, 50, 40), 0.5, np.float32), np.full((60, 50, 40), -1, np.int16)):
        with pytest.raises(BackgroundError, match="whole numbers from 0 on"):
            load(ct, nifti(tmp_path / "labels.nii.gz", data))
    with pytest.raises(BackgroundError, match=r"3D image .*\(60, 50, 4, 3\)"):
        load(ct, nifti(tmp_path / "labels.nii.gz", np.ones((60, 50, 4, 3), np.uint8)))
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(BackgroundError, match="cannot be read as NIfTI"):
        load(ct, broken)
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(BackgroundError, match="cannot serve as a background"):
        load(folder, nifti(tmp_path / "labels.nii.gz", np.full((60, 50, 40), 4, np.uint8)))


def test_labels_alone_need_the_whole_anatomy(tmp_path: Path) -> None:
    labels = nifti(tmp_path / "labels.nii.gz", np.full((60, 50, 40), 4, np.uint8))
    with pytest.raises(BackgroundError, match="too few to render"):
        load(None, labels)
