"""However a series is written, the patient gets the same answer, and left stays left.

Bit for bit, tests/dicom/test_orientation.py compares the volumes of all combinations; here a share
of them, with every pose, syntax and encoding in it, goes through the whole pipeline.

Nothing here needs slice networks that are any good. The patient has no right kidney, so whatever
they think of the left one, its side must be reported as left; and the cutoffs of the kidneys are
set to zero, so that it is reported.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation

from tests.bundles import replace_cutoffs
from tests.dicom import variants, write
from triage.dicom import decode, open_study
from triage.imaging.resample import to_grid
from triage.imaging.volume import to_volume
from triage.inference.localise import localise
from triage.inference.networks import Networks, load_networks
from triage.inference.score import look_at_slices, pool_slices
from triage.nets.bundle import find_bundle
from triage.pipeline import analyse
from triage.saliency.overlay import FOOTER, HEADER, ROOM, draw_overlay
from triage.settings import Settings
from triage.simulate.patient import Patient, kidney_side, simulate
from triage.simulate.plan import Case
from triage.types import ORGAN_LABEL, TARGETS, Organ, Phase, Report, Status, Target, Volume

_POSES, _ENCODINGS = list(variants.POSES), list(variants.ENCODINGS)
_MIXED = [
    (_POSES[i % len(_POSES)], syntax, _ENCODINGS[3 * i % len(_ENCODINGS)])
    for i, syntax in enumerate(variants.LOSSLESS)
]
VARIANTS: dict[str, dict[str, Any]] = {
    **{"-".join(way): {"axes": variants.POSES[way[0]], **variants.options(way)} for way in _MIXED},
    "sign_not_extended": {"axes": "RPI", "signed": True, "extend_sign": False, "syntax": "jpeg_ls"},
    "oblique": {"degrees": 8.0},
    "oblique_feet_first_enhanced": {"axes": "RPI", "degrees": -12.0, "enhanced": True},
}


def test_the_table_holds_every_pose_syntax_and_encoding() -> None:
    for values, known in zip(
        zip(*_MIXED, strict=True),
        (variants.POSES, variants.LOSSLESS, variants.ENCODINGS),
        strict=True,
    ):
        assert set(values) == set(known)


SOLID = (Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_LEFT)


class Simulated(NamedTuple):
    """A patient as voxels, and what is true of them."""

    image: nib.Nifti1Image
    injury: NDArray[np.bool_]  # (X, Y, Z)
    middle: float  # x of the spine, mm in RAS+


class Answer(NamedTuple):
    report: Report
    folder: Path


SPACING, PHASE = (2.0, 2.0, 4.0), Phase.PORTAL_VENOUS


@cache
def _seed() -> tuple[int, int]:
    """Of a patient whose left kidney alone is badly injured."""
    for seed in ((77, n) for n in range(60)):
        patient = _draw(seed)
        if patient.grades[Target.KIDNEY] and kidney_side(patient) == "left":
            return seed
    raise AssertionError("no patient with an injury of the left kidney was drawn")


def _draw(seed: tuple[int, int], **options: Any) -> Patient:
    fixed = {"spacing": SPACING, "case": Case(kidney=2), "phase": PHASE}
    return simulate(seed, **{**fixed, **options})[0]


@pytest.fixture(scope="module")
def patient() -> Simulated:
    """From the solid organs upward. Injured on the left; in the right kidney's place lies fat."""
    drawn = _draw(_seed())
    organs, affine = drawn.organs.numpy(), drawn.grid.affine
    kidney = organs == ORGAN_LABEL[Organ.KIDNEY_RIGHT]
    bed = binary_dilation(kidney, iterations=3) & ((organs == 0) | kidney)
    hu = drawn.hu.numpy().copy()
    hu[bed] = -95 + np.random.default_rng(5).normal(0, 12, int(bed.sum()))
    hu = hu.round().clip(-1000, 2000).astype(np.int16)
    spine = np.argwhere(organs == ORGAN_LABEL[Organ.SPINE]).mean(axis=0)
    middle = float(nib.affines.apply_affine(affine, spine)[0])
    solid = np.isin(organs, [ORGAN_LABEL[o] for o in SOLID]).any(axis=(0, 1))  # (Z,)
    low = max(0, int(solid.argmax()) - 6)
    image = nib.Nifti1Image(hu, affine).slicer[:, :, low:]
    return Simulated(image, drawn.masks[Target.KIDNEY].numpy()[:, :, low:], middle)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """The shipped networks, with cutoffs that report any score of the kidneys.

    The localiser is told that there is no right kidney. A volume that was mirrored on the way would
    show it that organ alone, and the kidneys would not be assessed.
    """
    folder = tmp_path_factory.mktemp("bundle") / "reference"
    shutil.copytree(find_bundle("reference"), folder)
    cutoffs = json.loads((folder / "cutoffs.json").read_text())
    for name in ("rule_out", "rule_in"):
        cutoffs["targets"]["kidney"][name]["cutoff"] = 0.0
    replace_cutoffs(folder, cutoffs)
    loaded = load_networks(folder, "cpu")
    loaded.localiser = OneKidney(loaded.localiser)  # type: ignore[assignment]
    return loaded


class OneKidney(torch.nn.Module):
    """A localiser that finds no right kidney."""

    def __init__(self, localiser: torch.nn.Module) -> None:
        super().__init__()
        self.localiser = localiser

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.localiser(x).clone()  # (1, 8, X, Y, Z)
        logits[:, ORGAN_LABEL[Organ.KIDNEY_RIGHT]] = -1e4
        return logits


def _oblique(image: nib.Nifti1Image, degrees: float) -> nib.Nifti1Image:
    turn = np.radians(degrees)
    spin = np.eye(4)
    spin[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    return nib.Nifti1Image(np.asarray(image.dataobj), spin @ image.affine)


def _run(image: nib.Nifti1Image, variant: dict[str, Any], folder: Path, nets: Networks) -> Answer:
    options = dict(variant)
    if degrees := options.pop("degrees", 0.0):
        image = _oblique(image, degrees)
    axes = options.pop("axes", "LPS")
    write.write_series(folder / "in", write.turned(image, axes), **options)
    report = analyse(folder / "in", folder / "out", networks=nets, settings=Settings())
    assert report.status is Status.ANALYSED, report.reason
    return Answer(report, folder / "out")


@pytest.fixture(scope="module")
def control(
    patient: Simulated, networks: Networks, tmp_path_factory: pytest.TempPathFactory
) -> Answer:
    return _run(patient.image, {}, tmp_path_factory.mktemp("control"), networks)


def _picture(path: Path) -> NDArray[np.int_]:
    """The slice of an overlay (rows, columns, 3), without texts and colour bar around it."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=int)[HEADER:-FOOTER, : ROOM[0]]


def _assert_left(patient: Simulated, answer: Answer) -> None:
    kidney = answer.report.findings[Target.KIDNEY]
    data = json.loads((answer.folder / "report.json").read_text())
    assert kidney.side == "left"
    assert data["targets"]["kidney"]["side"] == "left"
    image = nib.load(answer.folder / str(kidney.saliency))
    saliency = np.abs(image.get_fdata())
    if np.abs(image.affine[:3, 0]).max() > 0.9999:  # oblique: the spine lies elsewhere
        seen = nib.affines.apply_affine(image.affine, np.argwhere(saliency))
        assert seen[:, 0].max() < patient.middle
        mesh = gzip.decompress((answer.folder / "meshes" / "1_kidney_left.mz3").read_bytes())
        faces, points, skip = struct.unpack_from("<III", mesh, 4)
        start = 16 + skip + 12 * faces  # MZ3: faces, then vertices as float32
        vertices = np.frombuffer(mesh, "<f4", 3 * points, start).reshape(-1, 3)
        assert vertices[:, 0].max() < patient.middle
    hottest = _overlay(answer, int(saliency.sum(axis=(0, 1)).argmax()))
    assert _coloured(hottest).any()
    for path in (hottest, *(answer.folder / name for name in kidney.overlays)):
        columns = np.argwhere(_coloured(path))[:, 1]
        assert (columns > ROOM[0] / 2).all()  # the patient's left is the picture's right


def _overlay(answer: Answer, index: int) -> Path:
    """The overlay of the kidneys on one slice: key slices of weak networks may lie beside them."""
    with open_study(answer.folder.parent / "in", Settings()) as study:
        volume = to_volume(decode(study.series[0], Settings()))
    finding, bundle = answer.report.findings[Target.KIDNEY], answer.report.bundle
    assert bundle is not None
    image = nib.load(answer.folder / str(finding.saliency))
    saliency = MetaTensor(
        torch.from_numpy(image.get_fdata(dtype=np.float32))[None],
        affine=torch.from_numpy(image.affine),
    )
    path = answer.folder / "hottest.png"
    return draw_overlay(volume, finding, saliency, index, path, bundle=bundle, score_name="score")


def _coloured(path: Path) -> NDArray[np.bool_]:
    pixels = _picture(path)
    return np.abs(pixels[..., 0] - pixels[..., 2]) > 30


def _assert_same(answer: Answer, control: Answer, close: float) -> None:
    for target in TARGETS:
        one, two = answer.report.findings[target], control.report.findings[target]
        assert one.verdict is two.verdict
        assert one.side == two.side
        assert one.probability == pytest.approx(two.probability, abs=close)


@pytest.mark.long
def test_the_injury_is_on_the_left(patient: Simulated, control: Answer) -> None:
    """The control itself: mask, report and overlay say left, each by its own measure."""
    where = nib.affines.apply_affine(patient.image.affine, np.argwhere(patient.injury))
    assert where[:, 0].max() < patient.middle  # left is negative in RAS+
    _assert_left(patient, control)


@pytest.mark.long
def test_the_injury_moves_the_evidence_of_the_left_kidney_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both kidneys there, the injured patient against the same one unhurt: what differs is left."""
    monkeypatch.setattr("triage.inference.score.TARGETS", (Target.KIDNEY,))  # the others cost time
    networks, scores = load_networks(find_bundle("reference"), "cpu"), []
    for case in (Case(kidney=2), Case()):
        drawn = _draw(_seed(), case=case, scanned=False)
        affine = torch.from_numpy(drawn.grid.affine)
        hu = MetaTensor(drawn.hu[None], affine=affine)
        volume = Volume(hu=hu, instances=(), series=None)  # type: ignore[arg-type]
        grid = to_grid(volume)
        anatomy = localise(networks.localiser, grid)
        looked = look_at_slices(networks, grid, anatomy)[Target.KIDNEY]
        spine = (anatomy.labels.as_tensor()[0] == ORGAN_LABEL[Organ.SPINE]).nonzero()
        middle = float(spine[:, 0].float().mean())
        scores.append({v.region.centre[0] < middle: pool_slices(v.logits) for v in looked})
    hurt, unhurt = scores
    assert set(hurt) == set(unhurt) == {True, False}  # True: the patient's left
    assert abs(hurt[True] - unhurt[True]) > 2 * abs(hurt[False] - unhurt[False])


@pytest.mark.long
@pytest.mark.parametrize("name", VARIANTS)
def test_same_answer_and_left_stays_left(
    name: str, patient: Simulated, control: Answer, networks: Networks, tmp_path: Path
) -> None:
    answer = _run(patient.image, VARIANTS[name], tmp_path, networks)
    _assert_same(answer, control, 1e-3)
    _assert_left(patient, answer)
    pictures = {p.name for p in (control.folder / "overlays").glob("*.png")} - {"contact_sheet.png"}
    for picture in pictures:
        one, two = (_picture(a.folder / "overlays" / picture) for a in (answer, control))
        assert np.abs(one - two).mean() < 0.05


@pytest.mark.long
def test_lossy_12_bit_jpeg_says_so_and_left_stays_left(
    patient: Simulated, control: Answer, networks: Networks, tmp_path: Path
) -> None:
    answer = _run(patient.image, {"axes": "RAS", "syntax": "jpeg_extended"}, tmp_path, networks)
    _assert_same(answer, control, 0.05)
    _assert_left(patient, answer)
    assert any("lossy" in warning for warning in answer.report.warnings)
