"""The valid inputs that damage begins with: made here, small, the same at every run."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - its customary name

from tests.dicom import write

SYNTAXES = (
    *("explicit", "explicit", "explicit", "implicit", "big_endian", "deflated", "rle"),
    *("jpeg_lossless_sv1", "jpeg_ls", "jpeg_2000"),
)
# Those in which a UID stands in the file as it is, so that a copy can have its own.
PLAIN = tuple(name for name in SYNTAXES if name != "deflated")
FILES = ("volume.nii", "volume.nii.gz", "volume.nrrd", "volume.mha")
_DIGITS = 12  # at the end of a UID: what is exchanged in a copy


@dataclass(frozen=True)
class Seed:
    """One series: its slices by name of file, and every UID in them."""

    slices: tuple[bytes, ...]
    sop_uids: tuple[str, ...]  # of the slices
    uids: tuple[str, ...]  # these, too
    study_uid: str

    def copy(self, dice: random.Random) -> Seed:
        """The same images as another study."""
        low, high = 10 ** (_DIGITS - 1), 10**_DIGITS
        exchanged = {
            uid.encode(): f"{uid[:-_DIGITS]}{dice.randrange(low, high)}".encode()
            for uid in self.uids
        }
        slices = []
        for data in self.slices:
            for old, new in exchanged.items():
                data = data.replace(old, new)  # noqa: PLW2901
            slices.append(data)
        new = {old.decode(): uid.decode() for old, uid in exchanged.items()}
        sop_uids = tuple(new[uid] for uid in self.sop_uids)
        return Seed(tuple(slices), sop_uids, tuple(new.values()), new[self.study_uid])


@cache
def image() -> nibabel.Nifti1Image:
    return write.turned(write.phantom((40, 36, 12)), "LPS")


class Seeds:
    """All of them, written below `folder` once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._series: dict[str, Seed] = {}

    def series(self, syntax: str) -> Seed:
        if syntax not in self._series:
            paths = write.write_series(self.folder / syntax, image(), syntax=syntax)
            self._series[syntax] = seed_of(sorted(paths))
        return self._series[syntax]

    def file(self, name: str) -> bytes:
        path = self.folder / name
        if not path.exists():
            voxels = np.asarray(image().dataobj)
            if ".nii" in name:
                nibabel.save(image(), path)
            else:
                volume = sitk.GetImageFromArray(voxels.T)
                volume.SetSpacing((10.0, 9.5, 7.0))
                sitk.WriteImage(volume, str(path), useCompression=name.endswith("nrrd"))
        return path.read_bytes()


def seed_of(paths: Sequence[Path]) -> Seed:
    """A series that lies on the disk."""
    uids: dict[str, None] = {}
    study, instances = "", []
    for path in paths:
        data = pydicom.dcmread(path, stop_before_pixels=True)
        study = str(data.StudyInstanceUID)
        instances.append(str(data.SOPInstanceUID))
        keywords = (
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "FrameOfReferenceUID",
            "SOPInstanceUID",
        )
        uids |= dict.fromkeys(str(data[word].value) for word in keywords)
    slices = tuple(path.read_bytes() for path in paths)
    return Seed(slices, tuple(instances), tuple(uids), study)


def zipped(slices: Sequence[bytes], packed: bool = True) -> bytes:
    buffer = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", how, compresslevel=1) as archive:
        for number, data in enumerate(slices):
            archive.writestr(f"{number:03d}.dcm", data)
    return buffer.getvalue()
