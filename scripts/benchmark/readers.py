"""Reading a series, gate included, beside what a user would read it with."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from triage.dicom import decode, open_study
from triage.imaging.volume import to_volume
from triage.settings import Settings

Reader = Callable[[Path], Any]


def ours(folder: Path) -> Any:
    """Headers, gate and HU on the scanner's own axes: what the others return, and more checks."""
    with open_study(folder, Settings()) as study:
        return decode(study.series[0], Settings())


def ours_to_ras(folder: Path) -> Any:
    """The same, turned to RAS+ as float32."""
    return to_volume(ours(folder))


def simple_itk(folder: Path) -> Any:
    import SimpleITK as sitk  # noqa: N813 - its customary name

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.GetArrayFromImage(reader.Execute())


def monai_pydicom(folder: Path) -> Any:
    from monai.transforms import LoadImage

    return LoadImage(reader="PydicomReader")(folder)


def monai_itk(folder: Path) -> Any:
    from monai.transforms import LoadImage

    return LoadImage(reader="ITKReader")(folder)


def dicom2nifti(folder: Path) -> Any:
    from dicom2nifti import dicom_series_to_nifti

    with tempfile.TemporaryDirectory() as out:
        return dicom_series_to_nifti(str(folder), str(Path(out) / "ct.nii"), reorient_nifti=False)


def dcm2niix(folder: Path) -> Any:
    """Uncompressed NIfTI, no BIDS file."""
    with tempfile.TemporaryDirectory() as out:
        command = ["dcm2niix", "-z", "n", "-b", "n", "-o", out, str(folder)]
        subprocess.run(command, check=True, capture_output=True)


def readers() -> dict[str, Reader | str]:
    """Readers by name; a text instead where one is not installed."""
    found: dict[str, Reader | str] = {
        "triage: gate and decode": ours,
        "triage: to RAS+ float32": ours_to_ras,
        "SimpleITK": simple_itk,
        "MONAI PydicomReader": monai_pydicom,
    }
    for name, module, reader in (
        ("MONAI ITKReader", "itk", monai_itk),
        ("dicom2nifti", "dicom2nifti", dicom2nifti),
    ):
        installed = importlib.util.find_spec(module) is not None
        found[name] = reader if installed else f"{module} is not installed"
    program = shutil.which("dcm2niix")
    found["dcm2niix"] = dcm2niix if program else "dcm2niix is not installed"
    return found
