"""The whole way with the shipped bundle, on real CT and on input that must be refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates

from triage.decision.table import CutoffTable
from triage.inference.networks import Networks, load_networks
from triage.inference.score import gather
from triage.nets.bundle import find_bundle
from triage.pipeline import analyse
from triage.results.report import report_schema
from triage.saliency.again import NotExplained, explain_report, kept
from triage.saliency.attribution import explain
from triage.saliency.methods import Captum
from triage.saliency.names import Method
from triage.settings import Settings
from triage.types import TARGETS, Report, Status, Target, Verdict


@pytest.fixture(scope="session")
def networks() -> Networks:
    return load_networks(find_bundle("reference"), "cpu")


def _analyse(source: Path, networks: Networks, out: Path | None = None) -> Report:
    report = analyse(source, out, networks=networks, settings=Settings())
    assert report.status is Status.ANALYSED, report.reason
    return report


@pytest.fixture(scope="session")
def portal(
    shared: Path, networks: Networks, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("portal")
    return _analyse(shared / "ct" / "portal_abdomen_dicom", networks, out), out


def test_a_real_series_gets_five_answers(portal: tuple[Report, Path]) -> None:
    report, out = portal
    data = json.loads((out / "report.json").read_text())
    jsonschema.Draft202012Validator(report_schema()).validate(data)
    assert set(report.findings) == set(TARGETS)
    assert data["disclaimer"].startswith("Research use only")
    assert data["series"][0]["slices"] == 75


def test_a_bundle_of_simulated_patients_rules_nothing_out_on_a_real_scanner(
    portal: tuple[Report, Path],
) -> None:
    report, _ = portal
    verdicts = {f.verdict for f in report.findings.values()}
    assert not verdicts & {Verdict.NO_FINDING, Verdict.NOT_EXCLUDED}


def test_every_target_has_an_overlay(portal: tuple[Report, Path]) -> None:
    report, out = portal
    for finding in report.findings.values():
        with Image.open(out / finding.overlays[0]) as picture:
            assert min(picture.size) > 500


def test_saliency_fits_the_ct(portal: tuple[Report, Path], shared: Path) -> None:
    """The saliency's affine and shape are those of the mask that belongs to this very CT."""
    report, out = portal
    mask = nib.as_closest_canonical(nib.load(shared / "ct" / "portal_abdomen_organs.nii.gz"))
    named = [f for f in report.findings.values() if f.saliency]
    assert named
    for finding in named:
        saliency = nib.load(out / str(finding.saliency))
        assert saliency.shape == mask.shape
        assert np.allclose(saliency.affine, mask.affine, atol=0.01)
        assert np.isfinite(saliency.get_fdata()).all()


def test_the_liver_is_explained_where_the_liver_is(
    portal: tuple[Report, Path], shared: Path
) -> None:
    _, out = portal
    mask = nib.as_closest_canonical(nib.load(shared / "ct" / "portal_abdomen_liver.nii.gz"))
    liver = np.asarray(mask.dataobj) > 0
    saliency = np.abs(nib.load(out / "saliency_liver.nii.gz").get_fdata())
    assert saliency[liver].mean() > 3 * saliency[~liver].mean()


def test_one_contact_sheet_a_study(portal: tuple[Report, Path]) -> None:
    _, out = portal
    assert (out / "overlays" / "contact_sheet.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(out / "overlays" / "contact_sheet.png") as picture:
        assert picture.size[0] == 1800


def test_another_method_explains_the_report_from_its_folder(
    portal: tuple[Report, Path], networks: Networks
) -> None:
    report, out = portal
    target = next(t for t, f in report.findings.items() if f.saliency and t is not Target.BOWEL)
    (done,) = explain_report(out, networks, Method.GRADCAM, [target])
    folder = out / "explain" / "gradcam"
    own, first = (nib.load(f / str(report.findings[target].saliency)) for f in (folder, out))
    assert own.shape == first.shape and np.allclose(own.affine, first.affine, atol=1e-4)
    field = _field(out, networks, target)
    assert float(field.abs().max()) == 1
    assert np.abs(own.get_fdata() - _laid_on(own, field)).max() < 0.01  # stored in steps of 1/127
    assert (folder / done.overlays[0]).is_file()
    assert (folder / "overlays" / "contact_sheet.pdf").is_file()


def _field(report: Path, networks: Networks, target: Target) -> MetaTensor:
    """Layer Grad-CAM of a report's first series on the working grid."""
    own = kept(report, 1)
    evidence = gather(networks, own.grid, own.anatomy, [target])
    branches = Captum(networks, evidence, own.grid, own.anatomy, Method.GRADCAM)
    weights = CutoffTable.from_bundle(networks.folder).branch_weights(target)
    return explain(networks, evidence, own.anatomy, target, weights, branches)


def _laid_on(image: nib.Nifti1Image, field: MetaTensor) -> NDArray[np.float64]:
    """A field's trilinear values at the centres of an image's voxels."""
    to_field = np.linalg.inv(np.asarray(field.affine)) @ image.affine
    voxels = np.indices(image.shape).reshape(3, -1)
    places = to_field[:3, :3] @ voxels + to_field[:3, 3:]
    return map_coordinates(field[0].numpy(), places, order=1).reshape(image.shape)


def test_only_the_bundle_that_answered_explains(
    portal: tuple[Report, Path], networks: Networks
) -> None:
    _, out = portal
    other = replace(networks, ref=replace(networks.ref, sha256="0" * 64))
    with pytest.raises(NotExplained, match="the bundle that answered"):
        explain_report(out, other, Method.GRADCAM)
    with pytest.raises(NotExplained, match="report folder"):
        explain_report(out / "overlays", networks, Method.GRADCAM)


def test_key_slices_name_their_instances(portal: tuple[Report, Path]) -> None:
    report, _ = portal
    keys = [k for f in report.findings.values() for k in f.key_slices]
    assert keys
    assert all(k.sop_instance_uid and 0 <= k.index < 75 for k in keys)
    assert len({k.sop_instance_uid for k in keys}) == len({k.index for k in keys})


def test_without_contrast_extravasation_is_not_assessed(shared: Path, networks: Networks) -> None:
    report = _analyse(shared / "ct" / "plain_trunk_3mm.nii.gz", networks)
    finding = report.findings[Target.EXTRAVASATION]
    assert finding.verdict is Verdict.NOT_ASSESSED
    assert finding.reason == "NO_CONTRAST"
    assert finding.probability is None
    assert report.priority.value in {"urgent", "stat"}


def test_a_slab_is_not_judged_beyond_what_it_shows(shared: Path, networks: Networks) -> None:
    report = _analyse(shared / "ct" / "portal_slab_dicom", networks)
    for target in (Target.BOWEL, Target.KIDNEY):
        finding = report.findings[target]
        assert finding.verdict in {Verdict.NOT_ASSESSED, Verdict.SUSPECTED}
        if finding.verdict is Verdict.NOT_ASSESSED:
            assert finding.reason == "INCOMPLETE_COVERAGE"


@pytest.mark.parametrize("other", ["feet_first", "instance_number_shuffled"])
def test_the_same_patient_stored_otherwise_gets_the_same_answer(
    other: str, shared: Path, networks: Networks
) -> None:
    folder = shared / "badinputs" / "geometry"
    if not folder.is_dir():
        pytest.skip(f"test data not found at {folder}")
    one, two = (_analyse(folder / name, networks) for name in ("good", other))
    for target in TARGETS:
        a, b = one.findings[target], two.findings[target]
        assert a.verdict is b.verdict
        assert a.probability == pytest.approx(b.probability, abs=1e-3)


def test_what_cannot_be_read_gets_a_reason_and_no_verdict(
    tmp_path: Path, networks: Networks
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "notes.txt").write_text("no image here")
    report = analyse(source, tmp_path / "out", networks=networks, settings=Settings())
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report.status is Status.NOT_ANALYSED
    assert data["reason"]["code"]
    assert data["targets"] == {}
    assert data["priority"] == "urgent"


def test_a_decoder_that_is_too_slow_is_no_negative(shared: Path, networks: Networks) -> None:
    hasty = Settings(decode_timeout_s=0.01)
    report = analyse(shared / "ct" / "portal_slab_dicom", networks=networks, settings=hasty)
    assert report.status is Status.NOT_ANALYSED
    assert report.reason is not None
    assert report.reason.code == "TIMED_OUT"
    assert report.findings == {}
