"""Orientation is proven: one volume, however written, is the same RAS volume to the last HU."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.dicom import codecs, decode, open_study
from triage.imaging.volume import to_volume
from triage.settings import Settings
from triage.types import Volume

from . import variants, write
from .variants import ENCODINGS, LOSSLESS, POSES

PHANTOM = write.phantom()


def read(folder: Path) -> Volume:
    """What the reader makes of the only series, as the pipeline goes on with it: RAS+."""
    with open_study(folder, Settings()) as study:
        (series,) = study.series
        return to_volume(decode(series, Settings()))


def assert_same(got: Volume, want: nibabel.Nifti1Image = PHANTOM, atol: float = 0) -> None:
    """The same HU at the same places, and the marker on the patient's left."""
    hu, affine = got.hu.as_tensor()[0].numpy(), got.hu.affine.numpy()
    np.testing.assert_allclose(hu, want.get_fdata(), rtol=0, atol=atol)
    np.testing.assert_allclose(affine, want.affine, atol=1e-4)
    marker = nibabel.affines.apply_affine(affine, np.argwhere(hu > 1000).mean(axis=0))
    assert marker[0] < -50  # left is negative in RAS+


def assert_written_so(way: tuple[str, str, str], folder: Path) -> None:
    files = write.write_series(
        folder, write.turned(PHANTOM, POSES[way[0]]), **variants.options(way)
    )
    got = read(folder)
    assert_same(got)
    if len(files) > 1:  # classic: each slice keeps its instance
        upward = files if POSES[way[0]][2] == "S" else files[::-1]
        assert [i.path for i in got.instances] == upward


@pytest.mark.parametrize("way", variants.mixed().values(), ids=variants.mixed())
def test_way_of_writing(way: tuple[str, str, str], tmp_path: Path) -> None:
    assert_written_so(way, tmp_path)


def read_study(folder: Path, ways: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, Volume]]:
    """Writes the phantom in many ways as series of one study; yields (series UID, volume) of each.

    The UIDs are "1.2.3.1.<place in `ways`>".
    """
    count = 0
    for count, way in enumerate(ways, start=1):
        write.write_series(
            folder / str(count),
            write.turned(PHANTOM, POSES[way[0]]),
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID=f"1.2.3.1.{count}",
            **variants.options(way),
        )
    with open_study(folder, Settings()) as study:
        assert {s.series_instance_uid for s in study.series} == {
            f"1.2.3.1.{n + 1}" for n in range(count)
        }
        for series in study.series:
            yield series.series_instance_uid, to_volume(decode(series, Settings()))


@pytest.mark.long
@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("pose", POSES)
def test_every_way_of_writing(pose: str, syntax: str, tmp_path: Path) -> None:
    seen = 0
    for _, volume in read_study(tmp_path, [(pose, syntax, encoding) for encoding in ENCODINGS]):
        assert_same(volume)
        seen += 1
    assert seen == len(ENCODINGS)


@pytest.mark.parametrize(
    "options",
    [
        {"signed": True, "bits": 12, "extend_sign": False},
        {"signed": True, "bits": 12, "extend_sign": False, "syntax": "jpeg_ls"},
        {"signed": True, "bits": 12, "extend_sign": False, "syntax": "jpeg_2000"},
        {"intercepts": (-1024, -1050, -1100)},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PatientPosition": "HFS"},  # contradicts the orientation, which alone counts
    ],
    ids=str,
)
def test_encoding(options: dict[str, Any], tmp_path: Path) -> None:
    write.write_series(tmp_path, write.turned(PHANTOM, "RPI"), **options)
    assert_same(read(tmp_path))


@pytest.mark.parametrize("enhanced", [False, True])
def test_jpeg_extended_is_readable_and_noted_as_lossy(enhanced: bool, tmp_path: Path) -> None:
    image = write.turned(PHANTOM, "RAS")
    write.write_series(tmp_path, image, syntax="jpeg_extended", enhanced=enhanced)
    got = read(tmp_path)
    assert_same(got, atol=4)
    assert got.notes == ("lossy compression: HU are approximate",)


@pytest.mark.parametrize("bits", [12, 16])
def test_every_predictor_of_jpeg_lossless(bits: int) -> None:
    frame = np.random.default_rng(3).integers(0, 1 << bits, (48, 56)).astype(np.uint16)
    for predictor in range(1, 8):
        data = write.jpeg_lossless(predictor)(frame, bits)
        assert data[data.index(b"\xff\xda") + 7] == predictor
        got = codecs.CODECS["jpeg_lossless"](data, {"rows": 48, "columns": 56})
        np.testing.assert_array_equal(got, frame)


@pytest.mark.parametrize("degrees", [-20, 12])
def test_oblique(degrees: float, tmp_path: Path) -> None:
    image = write.tilted(PHANTOM, degrees)
    write.write_series(tmp_path, write.turned(image, "LPS"))
    assert_same(read(tmp_path), image)


def test_rescale_that_is_no_integer_gives_float(tmp_path: Path) -> None:
    write.write_series(tmp_path, write.turned(PHANTOM, "LPS"), RescaleIntercept="-1024.5")
    wanted = np.maximum(PHANTOM.get_fdata() - 0.5, -1024)
    np.testing.assert_array_equal(read(tmp_path).hu.as_tensor()[0].numpy(), wanted)


@pytest.mark.long
@given(
    axes=st.sampled_from(sorted(POSES.values())),
    degrees=st.floats(-25, 25),
    options=st.fixed_dictionaries(
        {
            "syntax": st.sampled_from(LOSSLESS),
            "signed": st.booleans(),
            "bits": st.sampled_from([12, 16]),
            "extend_sign": st.booleans(),
            "enhanced": st.booleans(),
            "shuffle": st.booleans(),
        }
    ),
)
@settings(max_examples=100, deadline=None)
def test_any_oblique_way_of_writing(axes: str, degrees: float, options: dict[str, Any]) -> None:
    image = write.tilted(PHANTOM, degrees)
    with tempfile.TemporaryDirectory() as folder:
        write.write_series(Path(folder), write.turned(image, axes), **options)
        assert_same(read(Path(folder)), image)


# What dcm2niix v1.0.20220720 (Debian 12) cannot read, and why.
NOT_FOR_DCM2NIIX = {
    "deflated": "it inflates nothing",
    "jpeg_ls": "built without a JPEG-LS decoder",
    "jpeg_extended": "it decodes no lossy JPEG of 12 bits",
    "htj2k": "OpenJPEG is called for JPEG 2000 part 1 alone",
    "htj2k_rpcl": "OpenJPEG is called for JPEG 2000 part 1 alone",
    "enhanced": "it reads compressed pixels of one frame alone",
    "signed_12": "negative values come out 4096 too high (its issue 688, mended in 2023)",
}


def no_dcm2niix(syntax: str, encoding: str) -> str | None:
    """Why the oracle cannot read a series, or None."""
    if "enhanced" in encoding and syntax in write.ENCODERS:
        return NOT_FOR_DCM2NIIX["enhanced"]
    return NOT_FOR_DCM2NIIX.get(syntax) or NOT_FOR_DCM2NIIX.get(encoding.removesuffix("_enhanced"))


READ_BY_BOTH = [how for how in product(LOSSLESS, ENCODINGS) if no_dcm2niix(*how) is None]
COMPARED = {  # each pose once, over all syntaxes that both read
    pose: (pose, *READ_BY_BOTH[i * len(READ_BY_BOTH) // len(POSES)]) for i, pose in enumerate(POSES)
}


def dcm2niix(source: Path, out: Path, name: str = "out") -> Path:
    oracle = shutil.which("dcm2niix")
    if not oracle:
        pytest.skip("dcm2niix is not installed")
    subprocess.run([oracle, "-o", out, "-f", name, "-z", "n", source], check=False)
    return out / f"{name}.nii"


def assert_dcm2niix_agrees(way: tuple[str, str, str], tmp_path: Path) -> None:
    image = write.turned(PHANTOM, POSES[way[0]])
    write.write_series(tmp_path / "dcm", image, **variants.options(way))
    theirs = nibabel.load(dcm2niix(tmp_path / "dcm", tmp_path))
    assert_same(read(tmp_path / "dcm"), nibabel.as_closest_canonical(theirs))


@pytest.mark.parametrize("way", COMPARED.values(), ids="-".join)
def test_dcm2niix_agrees(way: tuple[str, str, str], tmp_path: Path) -> None:
    assert_dcm2niix_agrees(way, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("pose", POSES)
def test_dcm2niix_agrees_on_all_it_reads(pose: str, tmp_path: Path) -> None:
    ours = dict(read_study(tmp_path / "dcm", [(pose, *how) for how in READ_BY_BOTH]))
    dcm2niix(tmp_path / "dcm", tmp_path, "%j")
    for uid, volume in ours.items():
        theirs = nibabel.load(tmp_path / f"{uid}.nii")
        assert_same(volume, nibabel.as_closest_canonical(theirs))


@pytest.mark.parametrize("degrees", [-20, 12])
def test_dcm2niix_agrees_on_oblique_series(degrees: float, tmp_path: Path) -> None:
    write.write_series(tmp_path / "dcm", write.turned(write.tilted(PHANTOM, degrees), "LPS"))
    theirs = nibabel.load(dcm2niix(tmp_path / "dcm", tmp_path))
    assert_same(read(tmp_path / "dcm"), nibabel.as_closest_canonical(theirs))


@pytest.mark.parametrize("name", NOT_FOR_DCM2NIIX)
def test_what_dcm2niix_cannot_read_is_no_excuse(name: str, tmp_path: Path) -> None:
    """The list above is true of the version it names; ours reads these, see the tests above."""
    options = {"signed_12": {"signed": True}, "enhanced": {"enhanced": True, "syntax": "rle"}}
    way: dict[str, Any] = options.get(name, {"syntax": name})
    write.write_series(tmp_path / "dcm", write.turned(PHANTOM, "LPS"), **way)
    path = dcm2niix(tmp_path / "dcm", tmp_path)
    version = subprocess.run(["dcm2niix", "--version"], capture_output=True, text=True, check=False)
    if "v1.0.20220720" not in version.stdout:
        pytest.skip("another version of dcm2niix")
    assert not path.exists() or nibabel.load(path).get_fdata().max() > 2000


DCMTK = {
    "implicit": ["dcmconv", "+ti"],
    "big_endian": ["dcmconv", "+tb"],
    "deflated": ["dcmconv", "+td"],
    "rle": ["dcmcrle"],
    "jpeg_lossless_sv1": ["dcmcjpeg", "+e1"],
    **{f"jpeg_lossless_{n}": ["dcmcjpeg", "+el", "+sv", str(n)] for n in range(2, 8)},
    "jpeg_ls": ["dcmcjpls", "+el"],
}


@pytest.mark.long
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", DCMTK)
def test_what_dcmtk_wrote(name: str, encoding: str, tmp_path: Path) -> None:
    tool, *flags = DCMTK[name]
    if not shutil.which(tool):
        pytest.skip("dcmtk is not installed")
    (tmp_path / "out").mkdir()
    image = write.turned(PHANTOM, "LAS")
    for path in write.write_series(tmp_path / "in", image, **ENCODINGS[encoding]):
        subprocess.run([tool, *flags, path, tmp_path / "out" / path.name], check=True)
    assert_same(read(tmp_path / "out"))


def test_real_ct_with_flipped_rows(shared: Path) -> None:
    """Real portal CT with (1,0,0, 0,-1,0): the organ masks beside it lie on their organs."""
    got = read(shared / "ct" / "portal_abdomen_dicom")
    masks = nibabel.as_closest_canonical(nibabel.load(shared / "ct/portal_abdomen_organs.nii.gz"))
    np.testing.assert_allclose(got.hu.affine, masks.affine, atol=0.01)
    hu, labels = got.hu.as_tensor()[0].numpy(), np.asarray(masks.dataobj)
    for organ in (1, 2, 3, 4):  # spleen, kidneys, liver
        assert 80 < np.median(hu[labels == organ]) < 250


def test_real_ct_with_blank_uids(shared: Path) -> None:
    got = read(shared / "ct" / "portal_slab_dicom")
    seg = nibabel.as_closest_canonical(nibabel.load(shared / "ct" / "portal_slab_seg.nii.gz"))
    np.testing.assert_allclose(got.hu.affine, seg.affine, atol=0.01)
