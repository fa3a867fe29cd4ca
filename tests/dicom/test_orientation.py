"""Orientation is proven: one volume, however written, is the same RAS volume to the last HU."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.dicom import decode, open_study
from triage.settings import Settings

from . import write

PHANTOM = write.phantom()

# Index axes (columns, rows, slices) of the same patient on the table.
POSES = {
    "head_first_supine": "LPS",
    "feet_first_supine": "RPI",
    "head_first_prone": "RAS",
    "feet_first_prone": "LAI",  # (1,0,0, 0,-1,0)
    "decubitus_right": "PRS",
    "decubitus_left": "ALS",
    "slices_downward": "LPI",
}


def read(folder: Path) -> nibabel.Nifti1Image:
    """What the reader makes of the only series, in RAS+."""
    with open_study(folder, Settings()) as study:
        (series,) = study.series
        stack = decode(series, Settings())
    assert len(stack.instances) == stack.hu.shape[2]
    return nibabel.as_closest_canonical(nibabel.Nifti1Image(np.asarray(stack.hu), stack.affine))


def assert_same(got: nibabel.Nifti1Image, want: nibabel.Nifti1Image = PHANTOM) -> None:
    np.testing.assert_array_equal(got.get_fdata(), want.get_fdata())
    np.testing.assert_allclose(got.affine, want.affine, atol=1e-4)


@pytest.mark.parametrize("axes", POSES.values(), ids=POSES)
def test_pose(axes: str, tmp_path: Path) -> None:
    write.write_series(tmp_path, write.turned(PHANTOM, axes), shuffle=True)
    got = read(tmp_path)
    assert_same(got)
    marker = np.argwhere(got.get_fdata() > 1000).mean(axis=0)
    assert nibabel.affines.apply_affine(got.affine, marker)[0] < -50  # left is negative in RAS+


@pytest.mark.parametrize("syntax", write.SYNTAX)
def test_syntax(syntax: str, tmp_path: Path) -> None:
    write.write_series(tmp_path, write.turned(PHANTOM, "LPS"), syntax=syntax)
    assert_same(read(tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        {"signed": True, "bits": 16},
        {"signed": True, "bits": 12},
        {"signed": True, "bits": 12, "extend_sign": False},
        {"signed": False, "bits": 16},
        {"intercepts": (-1024, -1050, -1100)},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"signed": True, "bits": 16, "syntax": "big_endian"},
        {"signed": True, "bits": 12, "extend_sign": False, "syntax": "jpeg_ls"},
        {"enhanced": True},
        {"enhanced": True, "syntax": "jpeg_2000"},
        {"enhanced": True, "syntax": "deflated"},
    ],
    ids=str,
)
def test_encoding(options: dict[str, Any], tmp_path: Path) -> None:
    write.write_series(tmp_path, write.turned(PHANTOM, "LAI"), **options)
    assert_same(read(tmp_path))


@pytest.mark.parametrize("degrees", [-20, 12])
def test_oblique(degrees: float, tmp_path: Path) -> None:
    image = write.tilted(PHANTOM, degrees)
    write.write_series(tmp_path, write.turned(image, "LPS"))
    assert_same(read(tmp_path), image)


def test_rescale_that_is_no_integer_gives_float(tmp_path: Path) -> None:
    write.write_series(tmp_path, write.turned(PHANTOM, "LPS"), RescaleIntercept="-1024.5")
    got = read(tmp_path).get_fdata()
    np.testing.assert_array_equal(got, PHANTOM.get_fdata() - 0.5)


@pytest.mark.long
@given(
    axes=st.sampled_from(sorted(set(POSES.values()))),
    degrees=st.floats(-25, 25),
    options=st.fixed_dictionaries(
        {
            "syntax": st.sampled_from(sorted(write.SYNTAX)),
            "signed": st.booleans(),
            "bits": st.sampled_from([12, 16]),
            "extend_sign": st.booleans(),
            "enhanced": st.booleans(),
            "shuffle": st.booleans(),
        }
    ),
)
@settings(max_examples=100, deadline=None)
def test_any_way_of_writing(axes: str, degrees: float, options: dict[str, Any]) -> None:
    image = write.tilted(PHANTOM, degrees)
    with tempfile.TemporaryDirectory() as folder:
        write.write_series(Path(folder), write.turned(image, axes), **options)
        assert_same(read(Path(folder)), image)


@pytest.mark.parametrize("axes", POSES.values(), ids=POSES)
@pytest.mark.parametrize("syntax", ["explicit", "jpeg_lossless_sv1"])
def test_dcm2niix_agrees(axes: str, syntax: str, tmp_path: Path) -> None:
    oracle = shutil.which("dcm2niix")
    if not oracle:
        pytest.skip("dcm2niix is not installed")
    write.write_series(tmp_path / "dcm", write.turned(PHANTOM, axes), syntax=syntax)
    subprocess.run([oracle, "-o", tmp_path, "-f", "out", "-z", "n", tmp_path / "dcm"], check=True)
    theirs = nibabel.as_closest_canonical(nibabel.load(tmp_path / "out.nii"))
    assert_same(read(tmp_path / "dcm"), theirs)


def test_real_ct_with_flipped_rows(shared: Path) -> None:
    """Real portal CT with (1,0,0, 0,-1,0): the organ masks beside it lie on their organs."""
    got = read(shared / "ct" / "portal_abdomen_dicom")
    masks = nibabel.as_closest_canonical(nibabel.load(shared / "ct/portal_abdomen_organs.nii.gz"))
    np.testing.assert_allclose(got.affine, masks.affine, atol=0.01)
    hu, labels = got.get_fdata(), np.asarray(masks.dataobj)
    for organ in (1, 2, 3, 4):  # spleen, kidneys, liver
        assert 80 < np.median(hu[labels == organ]) < 250


def test_real_ct_with_blank_uids(shared: Path) -> None:
    got = read(shared / "ct" / "portal_slab_dicom")
    seg = nibabel.as_closest_canonical(nibabel.load(shared / "ct" / "portal_slab_seg.nii.gz"))
    np.testing.assert_allclose(got.affine, seg.affine, atol=0.01)
