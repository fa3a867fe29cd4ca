"""Sources: folders, single files, zips and their attacks, NIfTI, NRRD, MHA."""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from triage.dicom import decode, files, open_study
from triage.reasons import NotAnalysed
from triage.settings import Settings
from triage.types import Stack

from . import write

PHANTOM = write.phantom()


def read(source: Path, **settings: float) -> Stack:
    with open_study(source, Settings(**settings)) as study:
        return decode(study.series[0], Settings(**settings))


def code_of(source: Path, **settings: float) -> str:
    with pytest.raises(NotAnalysed) as info:
        read(source, **settings)
    return info.value.code


def volume(stack: Stack) -> np.ndarray:
    image = nibabel.Nifti1Image(np.asarray(stack.hu), stack.affine)
    return nibabel.as_closest_canonical(image).get_fdata()


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write.write_series(tmp_path / "series", write.turned(PHANTOM, "LPS"))
    return tmp_path / "series"


def zipped(folder: Path, path: Path) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    for file in sorted(folder.iterdir()):
        archive.write(file, f"DICOM/{file.name}")
    return archive


def test_nested_folder_with_other_files_and_a_loop(series: Path) -> None:
    (series / "a" / "b").mkdir(parents=True)
    for file in sorted(series.glob("*.dcm"))[::2]:
        file.rename(series / "a" / "b" / file.stem)
    (series / "README.TXT").write_text("hello")
    (series / "a" / "loop").symlink_to(series)
    os.mkfifo(series / "pipe")
    np.testing.assert_array_equal(volume(read(series)), PHANTOM.get_fdata())


def test_damaged_file_beside_good_ones_is_no_gap_at_the_end(series: Path) -> None:
    last = max(series.iterdir())
    last.write_bytes(last.read_bytes()[:700])
    assert code_of(series) == "UNREADABLE"
    last.write_bytes(b"\0" * 5000)
    assert code_of(series) == "UNREADABLE"


@pytest.mark.parametrize(("modality", "said"), [("MR", True), ("SR", False)])
def test_a_last_slice_that_passes_for_another_object_is_named(
    series: Path, modality: str, said: bool
) -> None:
    """One damaged word would take it away where no gap shows that it was there."""
    last = max(series.iterdir())
    data = pydicom.dcmread(last)
    data.Modality = modality
    data.save_as(last)
    with open_study(series, Settings()) as study:
        assert ("NOT_CT: 1 object(s) were not used: MR" in study.warnings) is said
        assert len(study.series[0].instances) == len(list(series.iterdir())) - 1


def test_missing_empty_and_foreign_sources(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_study(tmp_path / "no", Settings()):
        pass
    assert code_of(tmp_path) == "UNREADABLE"
    (tmp_path / "notes.txt").write_text("nothing")
    assert code_of(tmp_path) == "UNREADABLE"
    assert code_of(tmp_path / "notes.txt") == "UNREADABLE"


def test_limits(series: Path) -> None:
    assert code_of(series, max_slices=13) == "TOO_LARGE"
    assert code_of(series, max_bytes=50_000) == "TOO_LARGE"


def test_zip_is_read_and_its_folder_removed(series: Path, tmp_path: Path) -> None:
    zipped(series, tmp_path / "s.zip").close()
    with open_study(tmp_path / "s.zip", Settings()) as study:
        folder = study.series[0].instances[0].path.parent
        stack = decode(study.series[0], Settings())
    assert not folder.exists()
    np.testing.assert_array_equal(volume(stack), PHANTOM.get_fdata())


def test_zip_slip_and_symlinks_write_nothing_outside(series: Path, tmp_path: Path) -> None:
    with zipped(series, tmp_path / "s.zip") as archive:
        archive.writestr("../../escaped.txt", "x")
        archive.writestr("/tmp/triage_escaped.txt", "x")  # noqa: S108
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert read(tmp_path / "s.zip").hu.shape == PHANTOM.shape
    assert not Path("/tmp/triage_escaped.txt").exists()  # noqa: S108
    assert not list(tmp_path.parent.rglob("escaped.txt"))


def test_zip_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        block = b"\0" * (1 << 20)
        with archive.open("zeros", "w", force_zip64=True) as entry:
            for _ in range(300):
                entry.write(block)
    assert code_of(tmp_path / "bomb.zip") == "TOO_LARGE"


def test_zip_of_a_hundred_thousand_entries(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(100_000):
            archive.writestr(str(number), b"")
    assert code_of(tmp_path / "many.zip") == "TOO_LARGE"


def test_damaged_zip(series: Path, tmp_path: Path) -> None:
    zipped(series, tmp_path / "s.zip").close()
    data = (tmp_path / "s.zip").read_bytes()
    (tmp_path / "s.zip").write_bytes(data[: len(data) // 2])
    assert code_of(tmp_path / "s.zip") == "UNREADABLE"


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.nrrd", "v.mha"])
@pytest.mark.parametrize("axes", ["LPS", "PSR"])
def test_research_formats(name: str, axes: str, tmp_path: Path) -> None:
    image = write.turned(PHANTOM, axes)
    path = tmp_path / name
    if ".nii" in name:
        nibabel.save(image, path)
    else:
        lps = np.diag([-1, -1, 1, 1]) @ image.affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        out = sitk.GetImageFromArray(np.asarray(image.dataobj).T)
        out.SetSpacing(spacing.tolist())
        out.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        out.SetOrigin(lps[:3, 3].tolist())
        sitk.WriteImage(out, str(path))
    stack = read(path)
    np.testing.assert_array_equal(volume(stack), PHANTOM.get_fdata())
    assert stack.hu.dtype == np.int16
    assert stack.series.study_instance_uid.startswith("2.25.")
    copy = path.with_name("copy" + name[1:])
    shutil.copy(path, copy)
    assert read(copy).series.series_instance_uid == stack.series.series_instance_uid


def nifti(path: Path, data: np.ndarray, affine: np.ndarray = PHANTOM.affine) -> Path:
    nibabel.save(nibabel.Nifti1Image(data, affine), path / "v.nii.gz")
    return path / "v.nii.gz"


def test_nifti_refusals(tmp_path: Path) -> None:
    hu = PHANTOM.get_fdata().astype(np.float32)
    shear = PHANTOM.affine.copy()
    shear[1, 2] = 2.0
    holes = hu.copy()
    holes[3, 3, 3] = np.nan
    assert code_of(nifti(tmp_path, holes)) == "PIXELS_INCONSISTENT"
    assert code_of(nifti(tmp_path, (hu + 1024) / 2224)) == "BAD_RESCALE"
    assert code_of(nifti(tmp_path, hu + 1024)) == "BAD_RESCALE"
    assert code_of(nifti(tmp_path, hu, shear)) == "TILT"
    assert code_of(nifti(tmp_path, hu[:, :, :5])) == "TOO_FEW_SLICES"
    assert code_of(nifti(tmp_path, np.stack([hu, hu], -1))) == "BAD_DIMENSIONS"
    path = nifti(tmp_path, hu)
    path.write_bytes(path.read_bytes()[:2000])
    assert code_of(path) in ("PIXELS_TRUNCATED", "UNREADABLE")
    image = nibabel.Nifti1Image(hu, None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nibabel.save(image, path)
    assert code_of(path) == "NO_GEOMETRY"


def test_mha_and_nrrd_that_point_at_other_files(tmp_path: Path) -> None:
    (tmp_path / "v.mha").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 8 8 20\nElementType = MET_CHAR\n"
        "ElementDataFile = /etc/passwd\n"
    )
    (tmp_path / "v.nrrd").write_text(
        "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 8 8 20\nencoding: raw\n"
        "data file: /etc/passwd\n\n"
    )
    assert code_of(tmp_path / "v.mha") == "UNREADABLE"
    assert code_of(tmp_path / "v.nrrd") == "UNREADABLE"


def test_bare_data_set_without_preamble(series: Path) -> None:
    for file in series.iterdir():
        data = file.read_bytes()
        meta = int.from_bytes(data[140:144], "little")
        file.write_bytes(data[144 + meta :])
    np.testing.assert_array_equal(volume(read(series)), PHANTOM.get_fdata())


@pytest.mark.parametrize("name", ["v.nii.gz", "v.nrrd", "v.mha"])
def test_damage_in_packed_voxels_is_seen(name: str, tmp_path: Path) -> None:
    """Readers stop before the checksum (ITK even says so and goes on): other voxels, no error."""
    path = tmp_path / name
    image = sitk.GetImageFromArray(np.asarray(PHANTOM.dataobj).T)
    image.SetSpacing((7.0, 7.0, 6.0))
    sitk.WriteImage(image, str(path), useCompression=True)
    good = path.read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 4
    request = {"path": str(path), "kind": files.kind_of(path), "shape": list(PHANTOM.shape)}
    for content, code in (
        (good, None),
        (bytes(damaged), "PIXELS_UNDECODABLE"),
        (good[:-3], "PIXELS_TRUNCATED"),
    ):
        path.write_bytes(content)
        with mmap.mmap(-1, 5 * PHANTOM.dataobj.size) as out:  # what the child does, here
            if code is None:
                assert files.load(request, out)["dtype"] == "int16"
                continue
            with pytest.raises(NotAnalysed) as refused:
                files.load(request, out)
        assert refused.value.code == code


def test_a_zip_whose_directory_lies_about_its_place(series: Path, tmp_path: Path) -> None:
    """zipfile then seeks before the start of the file: the zip's fault, and not the reader's."""
    path = tmp_path / "series.zip"
    zipped(series, path).close()
    path.write_bytes(path.read_bytes()[100:])
    assert code_of(path) == "UNREADABLE"
