"""However a series is written, the patient gets the same answer, and left stays left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.dicom import write
from triage.inference.networks import Networks, load_networks
from triage.nets.bundle import find_bundle
from triage.pipeline import analyse
from triage.settings import Settings
from triage.simulate.patient import Patient, kidney_side, simulate
from triage.simulate.plan import Case
from triage.types import TARGETS, Phase, Report, Status, Target

POSES = {"supine": "LPS", "feet_first": "RPI", "prone": "RAS", "plain_ras_rows": "LAI"}
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"axes": axes, "shuffle": True} for name, axes in POSES.items()},
    "decubitus": {"axes": "PRS"},
    "jpeg_2000_signed": {"syntax": "jpeg_2000", "signed": True, "bits": 16},
    "jpeg_ls_12_bit": {"syntax": "jpeg_ls", "signed": True, "bits": 12, "extend_sign": False},
    "big_endian": {"syntax": "big_endian", "bits": 16},
    "enhanced": {"enhanced": True},
    "oblique": {"degrees": 8.0},
}


def _patient() -> Patient:
    """A simulated patient whose left kidney alone is badly injured."""
    for seed in range(60):
        patient = simulate(
            (77, seed),
            spacing=(2.0, 2.0, 4.0),
            case=Case(kidney=2),
            phase=Phase.PORTAL_VENOUS,
        )[0]
        if patient.grades[Target.KIDNEY] and kidney_side(patient) == "left":
            return patient
    raise AssertionError("no patient with an injury of the left kidney was drawn")


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_networks(find_bundle("reference"), "cpu")


@pytest.fixture(scope="module")
def image() -> nib.Nifti1Image:
    patient = _patient()
    hu = patient.hu.round().clamp(-1000, 2000).numpy().astype(np.int16)
    return nib.Nifti1Image(hu, patient.grid.affine)


def _oblique(image: nib.Nifti1Image, degrees: float) -> nib.Nifti1Image:
    turn = np.radians(degrees)
    spin = np.eye(4)
    spin[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    return nib.Nifti1Image(np.asarray(image.dataobj), spin @ image.affine)


def _run(image: nib.Nifti1Image, variant: dict[str, Any], folder: Path, nets: Networks) -> Report:
    options = dict(variant)
    if degrees := options.pop("degrees", 0.0):
        image = _oblique(image, degrees)
    axes = options.pop("axes", "LPS")
    write.write_series(folder / "in", write.turned(image, axes), **options)
    report = analyse(folder / "in", folder / "out", networks=nets, settings=Settings())
    assert report.status is Status.ANALYSED, report.reason
    return report


@pytest.fixture(scope="module")
def control(
    image: nib.Nifti1Image, networks: Networks, tmp_path_factory: pytest.TempPathFactory
) -> Report:
    return _run(image, {}, tmp_path_factory.mktemp("control"), networks)


@pytest.mark.long
@pytest.mark.parametrize("name", VARIANTS)
def test_same_answer_and_left_stays_left(
    name: str, image: nib.Nifti1Image, control: Report, networks: Networks, tmp_path: Path
) -> None:
    report = _run(image, VARIANTS[name], tmp_path, networks)
    for target in TARGETS:
        one, two = report.findings[target], control.findings[target]
        assert one.verdict is two.verdict
        assert one.probability == pytest.approx(two.probability, abs=1e-3)
    kidney = report.findings[Target.KIDNEY]
    assert kidney.flagged
    assert kidney.side == "left"
    saliency = nib.load(tmp_path / "out" / str(kidney.saliency))
    hot = np.unravel_index(int(saliency.get_fdata().argmax()), saliency.shape)
    assert nib.affines.apply_affine(saliency.affine, hot)[0] < -15  # left is negative in RAS+
    with Image.open(tmp_path / "out" / kidney.overlays[0]) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    red = pixels[..., 0] - pixels[..., 2] > 30
    red = red[100:-150, : int(pixels.shape[1] * 0.88)]  # without texts and colour bar
    assert red.any()
    assert red[:, red.shape[1] // 2 :].sum() > 3 * red[:, : red.shape[1] // 2].sum()
