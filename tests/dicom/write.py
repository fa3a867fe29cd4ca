"""Writes CT series for tests: any orientation, transfer syntax, sign, bits, classic or Enhanced."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset, Sequence, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import generate_uid

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.1"

Array = NDArray[Any]

Encoder = Callable[[Array, int], bytes]

SYNTAX = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big_endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg_extended": "1.2.840.10008.1.2.4.51",
    "jpeg_lossless": "1.2.840.10008.1.2.4.57",
    "jpeg_lossless_sv1": "1.2.840.10008.1.2.4.70",
    "jpeg_ls": "1.2.840.10008.1.2.4.80",
    "jpeg_2000": "1.2.840.10008.1.2.4.90",
    "htj2k": "1.2.840.10008.1.2.4.201",
    "htj2k_rpcl": "1.2.840.10008.1.2.4.202",
}


def _rle(frame: Array, _bits: int) -> bytes:
    return RLELosslessEncoder.encode(
        frame.tobytes(),
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=1,
        bits_allocated=16,
        bits_stored=16,
        pixel_representation=0,
        number_of_frames=1,
        photometric_interpretation="MONOCHROME2",
    )


def jpeg_lossless(predictor: int) -> Encoder:
    """Process 14; PS3.5 8.2.1 allows .70 no predictor but 1."""

    def encode(frame: Array, bits: int) -> bytes:
        unsigned = frame.view(np.uint16)
        return imagecodecs.jpeg8_encode(
            unsigned, lossless=True, predictor=predictor, bitspersample=bits
        )

    return encode


def _jpeg_extended(frame: Array, _bits: int) -> bytes:
    return imagecodecs.jpeg8_encode(frame, level=100, bitspersample=12)


def _jpeg_2000(frame: Array, bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(
        frame, level=0, codecformat="j2k", reversible=True, bitspersample=bits
    )


def _htj2k(frame: Array, _bits: int) -> bytes:
    return imagecodecs.htj2k_encode(frame, reversible=True)


# A frame, signed where the codestream can say so, and its precision -> codestream.
ENCODERS: dict[str, Encoder] = {
    "rle": _rle,
    "jpeg_extended": _jpeg_extended,
    "jpeg_lossless": jpeg_lossless(4),
    "jpeg_lossless_sv1": jpeg_lossless(1),
    "jpeg_ls": lambda frame, _bits: imagecodecs.jpegls_encode(frame.view(np.uint16)),
    "jpeg_2000": _jpeg_2000,
    "htj2k": _htj2k,
    "htj2k_rpcl": _htj2k,
}
SIGNED_CODESTREAM = ("jpeg_2000", "htj2k", "htj2k_rpcl")


def phantom(shape: tuple[int, int, int] = (56, 48, 14)) -> nibabel.Nifti1Image:
    """A trunk of 35 x 28 cm in RAS+ at 7 x 7 x 6 mm with air around, a spine, and one bright
    marker on the patient's left, behind, low. int16 HU from -1024 to 1200."""
    rng = np.random.default_rng(7)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[(x / 0.9) ** 2 + (y / 0.85) ** 2 < 1] = 45
    hu[(x**2 + (y + 0.6) ** 2) < 0.02] = 600
    hu[((x + 0.5) ** 2 + (y + 0.3) ** 2 + (z + 0.4) ** 2) < 0.03] = 1200
    hu = np.clip(hu + rng.normal(0, 12, shape), -1024, 1200).astype(np.int16)
    affine = np.diag([7.0, 7.0, 6.0, 1.0])
    affine[:3, 3] = -190.5, -160.25, -700.0
    # RAS+: x grows to the patient's right, so the marker at x = -0.5 is on the left.
    return nibabel.Nifti1Image(hu, affine)


def turned(image: nibabel.Nifti1Image, axes: str) -> nibabel.Nifti1Image:
    """The same volume with other index axes, e.g. "LPS" as scanners store head first supine."""
    start = nibabel.io_orientation(image.affine)
    stop = nibabel.orientations.axcodes2ornt(tuple(axes))
    return image.as_reoriented(nibabel.orientations.ornt_transform(start, stop))


def tilted(image: nibabel.Nifti1Image, degrees: float) -> nibabel.Nifti1Image:
    """The same voxels in a frame turned about the left-right axis: an oblique series."""
    a = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return nibabel.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine)


def write_series(
    folder: Path,
    image: nibabel.Nifti1Image,
    *,
    syntax: str = "explicit",
    signed: bool = False,
    bits: int = 12,
    extend_sign: bool = True,
    enhanced: bool = False,
    intercepts: tuple[int, ...] = (),
    shuffle: bool = False,
    change: Callable[[int, Dataset], Any] | None = None,
    **attributes: Any,
) -> list[Path]:
    """Writes `image` (X, Y, Z) = (column, row, slice) as one series; the files by slice index.

    `intercepts` are taken in turn for the slices. `change(k, dataset)` may edit slice k before it
    is written; `attributes` are set on each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hu = np.asarray(image.dataobj).astype(int)
    depth = hu.shape[2]
    intercepts = intercepts or ((0,) if signed else (-1024,))
    numbers = list(range(1, depth + 1))
    if shuffle:
        random.Random(3).shuffle(numbers)  # noqa: S311
    uids = {name: generate_uid() for name in ("study", "series", "frame")}
    common = _common(uids, hu.shape, signed, bits)
    slices = []
    for k in range(depth):
        item = deepcopy(common)
        item.InstanceNumber = numbers[k]
        item.SOPInstanceUID = generate_uid()
        item.RescaleSlope, item.RescaleIntercept = 1, intercepts[k % len(intercepts)]
        _place(item, image.affine, k)
        stored = hu[:, :, k].T - int(item.RescaleIntercept)
        if signed and bits < 16 and not extend_sign:
            stored &= (1 << bits) - 1
        frame = np.ascontiguousarray(stored.astype(np.int64).astype(np.uint16))
        item.PixelData = frame.tobytes()
        for name, value in attributes.items():
            setattr(item, name, value)
        if change:
            change(k, item)
        slices.append(item)
    if enhanced:
        return [_save(folder / "enhanced.dcm", _enhanced(slices), syntax, depth)]
    names = [folder / f"{numbers[k]:04d}.dcm" for k in range(depth)]
    return [_save(name, item, syntax, 1) for name, item in zip(names, slices, strict=True)]


def _common(uids: dict[str, str], shape: tuple[int, int, int], signed: bool, bits: int) -> Dataset:
    item = Dataset()
    item.SOPClassUID, item.Modality = CT_IMAGE, "CT"
    item.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    item.StudyInstanceUID, item.SeriesInstanceUID = uids["study"], uids["series"]
    item.FrameOfReferenceUID = uids["frame"]
    item.PatientID, item.PatientName, item.PatientAge = "T-1", "TEST^PHANTOM", "050Y"
    item.PatientBirthDate, item.StudyDate = "", "20200101"
    item.Manufacturer = "TEST"
    item.AcquisitionNumber = 1
    item.Columns, item.Rows = shape[0], shape[1]
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit = 16, bits, bits - 1
    item.PixelRepresentation = int(signed)
    return item


def _place(item: Dataset, affine: Array, k: int) -> None:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = lps[:3, :2] / spacing[:2]
    item.ImageOrientationPatient = [round(float(v), 10) for v in cosines.T.ravel()]
    item.ImagePositionPatient = [round(float(v), 6) for v in lps[:3] @ [0, 0, k, 1]]
    item.PixelSpacing = [round(float(spacing[1]), 8), round(float(spacing[0]), 8)]
    item.SliceThickness = round(float(spacing[2]) * 1.5, 4)  # slices overlap: no distance


def _enhanced(slices: list[Dataset]) -> Dataset:
    whole = Dataset()
    whole.update(slices[0])
    whole.SOPClassUID = ENHANCED_CT_IMAGE
    whole.NumberOfFrames = len(slices)
    whole.ContentDate, whole.ContentTime = "20200101", "120000"
    frames = []
    for number, item in enumerate(slices, start=1):
        position, plane, measures, values, content = (Dataset() for _ in range(5))
        position.ImagePositionPatient = item.ImagePositionPatient
        plane.ImageOrientationPatient = item.ImageOrientationPatient
        measures.PixelSpacing, measures.SliceThickness = item.PixelSpacing, item.SliceThickness
        values.RescaleSlope, values.RescaleIntercept = item.RescaleSlope, item.RescaleIntercept
        content.FrameAcquisitionNumber = 1
        content.StackID, content.InStackPositionNumber = "1", number
        content.DimensionIndexValues = [1, number]
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([position])
        frame.PixelValueTransformationSequence = Sequence([values])
        frame.FrameContentSequence = Sequence([content])
        frames.append(frame)
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([plane])
    shared.PixelMeasuresSequence = Sequence([measures])
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    random.Random(5).shuffle(order := list(range(len(slices))))  # noqa: S311
    whole.PerFrameFunctionalGroupsSequence = Sequence([frames[i] for i in order])
    whole.PixelData = b"".join(slices[i].PixelData for i in order)
    for name in (
        *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
        *("RescaleSlope", "RescaleIntercept"),
    ):
        delattr(whole, name)
    return whole


def _save(path: Path, item: Dataset, syntax: str, frames: int) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = SYNTAX[syntax]
    meta.MediaStorageSOPClassUID = item.SOPClassUID
    meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    item.file_meta = meta
    if syntax in ENCODERS and "PixelData" in item:
        pixels = np.frombuffer(item.PixelData, np.uint16).reshape(frames, item.Rows, item.Columns)
        bits = item.BitsStored if pixels.max() < 1 << item.BitsStored else 16
        if item.PixelRepresentation and bits == 16 and syntax in SIGNED_CODESTREAM:
            pixels, bits = pixels.view(np.int16), item.BitsStored
        item.PixelData = encapsulate([ENCODERS[syntax](frame, bits) for frame in pixels])
        item["PixelData"].is_undefined_length = True
    elif syntax == "big_endian" and "PixelData" in item:
        item.PixelData = np.frombuffer(item.PixelData, np.uint16).byteswap().tobytes()
    if "PixelData" in item:
        item["PixelData"].VR = "OB" if syntax in ENCODERS else "OW"
    dcmwrite(path, item, enforce_file_format=True)
    return path
