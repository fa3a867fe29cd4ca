"""Maps written to disk lie on the CT they belong to."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from triage.imaging.volume import to_volume
from triage.saliency.nifti import write_nifti
from triage.types import Series, Stack


def test_the_affine_fits_the_ct(tmp_path: Path) -> None:
    """A hot voxel of the scanner's own image is hot at the same place in the world."""
    affine = np.array([[-0.7, 0, 0, 90], [0, -0.7, 0.02, 80], [0, 0, -5, 12], [0, 0, 0, 1.0]])
    hu = np.full((11, 13, 7), 40, dtype=np.int16)
    hu[2, 3, 1] = 900
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "ct.nii.gz")
    ct = nib.load(tmp_path / "ct.nii.gz")
    volume = to_volume(Stack(np.asanyarray(ct.dataobj), ct.affine, (), Series("1", "2", ())))
    hot = MetaTensor((volume.hu.as_tensor() - 40) / 1000, affine=volume.hu.affine)
    write_nifti(hot, tmp_path / "map.nii.gz")
    written = nib.load(tmp_path / "map.nii.gz")
    place = written.affine @ [*np.argwhere(written.get_fdata() > 0.5)[0], 1]
    assert np.allclose(place, ct.affine @ [2, 3, 1, 1], atol=1e-3)
    assert written.get_fdata().max() == pytest.approx(0.86, abs=1e-4)
    assert int(written.header["sform_code"]) == 1


def test_on_a_real_ct(shared: Path, tmp_path: Path) -> None:
    ct = nib.load(shared / "ct" / "plain_trunk_3mm.nii.gz")
    hu = np.asanyarray(ct.dataobj)
    volume = to_volume(Stack(hu, ct.affine, (), Series("1", "2", ())))
    bone = MetaTensor((volume.hu.as_tensor() > 300).float(), affine=volume.hu.affine)
    written = nib.load(write_nifti(bone, tmp_path / "map.nii.gz"))
    as_ct = nib.as_closest_canonical(ct)
    assert np.allclose(written.affine, as_ct.affine, atol=1e-3)
    assert np.allclose(written.get_qform(), as_ct.affine, atol=1e-2)
    assert np.array_equal(written.get_fdata() > 0.5, np.asanyarray(as_ct.dataobj) > 300)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-12, 1e6), st.integers(0, 2**31))
def test_signs_zeros_and_values_survive(tmp_path_factory, size, seed) -> None:
    values = torch.randn(1, 5, 6, 7, generator=torch.Generator().manual_seed(seed)) * size
    values[:, 1:3] = 0
    path = tmp_path_factory.mktemp("map") / "map.nii.gz"
    write_nifti(MetaTensor(values, affine=torch.eye(4, dtype=torch.float64)), path)
    back = nib.load(path).get_fdata()
    largest = float(values.abs().max())
    assert np.abs(back - values[0].numpy()).max() <= largest / 127 * 0.501
    assert (back[values[0].numpy() == 0] == 0).all()
    assert (np.sign(back) * np.sign(values[0].numpy()) >= 0).all()


def test_an_empty_map_is_written_as_zeros(tmp_path: Path) -> None:
    path = write_nifti(MetaTensor(torch.zeros(1, 4, 4, 4)), tmp_path / "map.nii")
    assert not nib.load(path).get_fdata().any()


def test_wrong_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finite"):
        write_nifti(MetaTensor(torch.full((1, 2, 2, 2), torch.nan)), tmp_path / "map.nii")
    with pytest.raises(ValueError, match=r"\(1, X, Y, Z\)"):
        write_nifti(MetaTensor(torch.zeros(2, 2, 2, 2)), tmp_path / "map.nii")
