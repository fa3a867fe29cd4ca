"""Simulated studies of 512 x 512 for the benchmark: any number of slices, three transfer syntaxes.

One simulated patient is made once; each study is that patient's volume sliced finer or coarser, so
that all studies show the same body, and differ in bytes alone.
"""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

from triage.dicom import decode, open_study
from triage.settings import Settings
from triage.simulate.study import write_dataset
from triage.types import Phase

SYNTAXES = {
    "uncompressed": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg2000": JPEG2000Lossless,
}
SEED = 71
INTERCEPT = -1024
NOISE_HU = 6.0  # added to each slice: interpolated slices alone would compress too well


def study(cache: Path, slices: int, syntax: str) -> Path:
    """Folder of a study below `cache`, made if it is not there."""
    folder = cache / f"study_{slices}_{syntax}"
    if (folder / "done").exists():
        return folder / "series"
    part = cache / f".{folder.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    (part / "series").mkdir(parents=True)
    _write(part / "series", _patient(cache), slices, syntax)
    (part / "done").touch()
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder / "series"


def _patient(cache: Path) -> Path:
    """Series of the simulated patient that all studies are made from."""
    out = cache / "patient"
    write_dataset(out, 1, SEED, injured=True, phase=Phase.PORTAL_VENOUS)
    return next(path for path in sorted((out / "train_images").glob("*/*")) if path.is_dir())


def _write(folder: Path, source: Path, slices: int, syntax: str) -> None:
    with open_study(source, Settings()) as opened:
        stack = decode(opened.series[0], Settings())
        depth = stack.hu.shape[2]
        template = pydicom.dcmread(stack.instances[0].path)
        rng = np.random.default_rng(SEED)
        at = (np.arange(slices) + 0.5) * depth / slices - 0.5  # in slices of the patient
        uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
        for k, z in enumerate(np.clip(at, 0, depth - 1)):
            low = min(int(z), depth - 2)
            share = z - low
            hu = (1 - share) * stack.hu[:, :, low] + share * stack.hu[:, :, low + 1]
            hu = np.where(hu > -1000, hu + rng.normal(0, NOISE_HU, hu.shape), hu)
            item = deepcopy(template)
            for name, value in uids.items():
                setattr(item, name, value)
            position = stack.affine[:3] @ (0, 0, at[k], 1)
            _place(item, k, position, float(np.linalg.norm(stack.affine[:3, 2])) * depth / slices)
            _pixels(item, np.clip(np.rint(hu.T), INTERCEPT, 3071).astype(np.int16), syntax)
            item.save_as(folder / f"{k + 1:04d}.dcm", enforce_file_format=True)


def _place(item: Any, k: int, position: NDArray[Any], step: float) -> None:
    item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    item.InstanceNumber = str(k + 1)
    # RAS+ to DICOM's left and back
    item.ImagePositionPatient = [f"{v:.8g}" for v in (-position[0], -position[1], position[2])]
    item.SliceLocation = f"{position[2]:.8g}"
    item.SliceThickness = f"{step:.6g}"
    if "SpacingBetweenSlices" in item:
        item.SpacingBetweenSlices = f"{step:.6g}"


def _pixels(item: Any, hu: NDArray[np.int16], syntax: str) -> None:
    """Unsigned 12 bits with intercept -1024, as most scanners write them."""
    frame = (hu - INTERCEPT).astype(np.uint16)
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
    item.RescaleSlope, item.RescaleIntercept = 1, INTERCEPT
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit", "SmallestImagePixelValue"):
        if name in item:
            delattr(item, name)
    item.file_meta.TransferSyntaxUID = SYNTAXES[syntax]
    if syntax == "uncompressed":
        item.PixelData = frame.tobytes()
        item["PixelData"].VR = "OW"
        return
    content = _rle(frame) if syntax == "rle" else _jpeg2000(frame)
    item.PixelData = encapsulate([content])
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = True


def _rle(frame: NDArray[np.uint16]) -> bytes:
    encoded: bytes = RLELosslessEncoder.encode(
        frame.tobytes(),
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=1,
        bits_allocated=16,
        bits_stored=12,
        pixel_representation=0,
        number_of_frames=1,
        photometric_interpretation="MONOCHROME2",
    )
    return encoded


def _jpeg2000(frame: NDArray[np.uint16]) -> bytes:
    encoded: bytes = imagecodecs.jpeg2k_encode(
        frame, level=0, codecformat="j2k", reversible=True, bitspersample=12
    )
    return encoded
