"""Maps as NIfTI files on the voxels of the CT."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
import torch
from isal import igzip, isal_zlib
from monai.data import MetaTensor
from numpy.typing import NDArray

from triage.files import write_atomic
from triage.imaging.planes import Planes
from triage.types import Volume

# Steps on each side of zero. Saliency has no finer meaning, and 8 bits with a scale factor keep a
# whole CT's map at a few megabytes.
STEPS = 127

_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # RFC 1952: deflate, no name, no time
_AT_ONCE = 16  # slices
# ISA-L's level 1, measured on maps: a seventh of the time of zlib's, and a quarter smaller.
_LEVEL = 1


def write_nifti(saliency: MetaTensor | Planes, path: Path) -> Path:
    """Write a map on the volume's voxels as NIfTI-1 (gzip where the name ends in .gz).

    Stored as int8 with a scale factor and no offset: zero stays exactly zero, signs stay, values
    are rounded to 1/127 of the largest magnitude. The affine is that of the volume, RAS+ mm, as
    both sform and qform (scanner anatomical); a sheared affine has no qform.

    Parameters
    ----------
    saliency : (1, X, Y, Z), or its planes; signed: positive speaks for the target, negative
        against.
    path : file to write; an existing file is replaced.

    Raises
    ------
    ValueError
        If the map is not (1, X, Y, Z) or not finite.
    """
    source = saliency if isinstance(saliency, Planes) else _Whole(saliency)
    largest = source.peak()
    if not np.isfinite(largest):
        raise ValueError("Expected a finite map")
    # The scale is stored as float32; at least tiny, so that a map of denormals divides cleanly.
    slope = float(np.float32(max(largest, 1e-30) / STEPS))
    head = _header(source.shape, source.affine.cpu().numpy().astype(np.float64), slope, largest)
    with path.open("wb") as file:
        if path.suffix == ".gz":
            _write_gzip(file, head, _stored(source, slope), source.shape)
        else:
            file.write(head)
            empty = bytes(source.shape[0] * source.shape[1])
            for content in _stored(source, slope):
                file.write(content or empty)
    return path


class _Whole:
    """A map that is there as a whole, as `Planes` would give it."""

    def __init__(self, saliency: MetaTensor) -> None:
        if saliency.ndim != 4 or saliency.shape[0] != 1:
            raise ValueError(f"Expected a map (1, X, Y, Z), got {tuple(saliency.shape)}")
        self._values = saliency.as_tensor()[0].cpu()
        self.shape = tuple(int(n) for n in self._values.shape)
        self.affine = saliency.affine
        self.box = tuple(slice(0, n) for n in self.shape)

    def stack(self, first: int, last: int) -> torch.Tensor:
        stack: torch.Tensor = self._values[:, :, first:last].permute(2, 1, 0)
        return stack

    def peak(self) -> float:
        memory = sorted(range(3), key=self._values.stride, reverse=True)  # slow in other orders
        return max(abs(float(v)) for v in self._values.permute(memory).aminmax())


def write_organs(labels: MetaTensor, volume: Volume, straight: Volume, path: Path) -> Path:
    """Write organ labels (1, X, Y, Z) as they are on the working grid, placed in the patient.

    The grid lies along the axes of `straight`; the file's affine turns it back to those of
    `volume`, RAS+ mm, so that it lies on the CT however oblique that is.
    """
    turn = volume.hu.affine.double() @ torch.linalg.inv(straight.hu.affine.double())
    affine = (turn @ labels.affine.double()).cpu().numpy()
    image = nib.Nifti1Image(labels.as_tensor()[0].cpu().numpy().astype(np.uint8), affine)
    image.header.set_xyzt_units("mm")
    return write_atomic(path, igzip.compress(image.to_bytes(), compresslevel=_LEVEL, mtime=0))


def _stored(source: Planes | _Whole, slope: float) -> Iterator[bytes | None]:
    """The slices as int8, X fastest; None is a slice of zeros."""
    box, (x, y, z) = source.box, source.shape
    if box is None:
        yield from repeat(None, z)
        return
    canvas, empty = torch.zeros((_AT_ONCE, y, x), dtype=torch.int8), bytes(y * x)
    yield from repeat(None, box[2].start)
    for first in range(box[2].start, box[2].stop, _AT_ONCE):
        stack = source.stack(first, min(first + _AT_ONCE, box[2].stop))  # (Z, Y, X)
        canvas[: len(stack), box[1], box[0]] = (stack / slope).round_().clamp_(-STEPS, STEPS)
        for values in canvas[: len(stack)].numpy():
            content = values.tobytes()
            yield None if content == empty else content
    yield from repeat(None, z - box[2].stop)


def _write_gzip(
    file: BinaryIO, head: bytes, slices: Iterator[bytes | None], shape: tuple[int, ...]
) -> None:
    """One gzip member (RFC 1952). Each slice is deflated on its own: empty ones only once."""
    size = shape[0] * shape[1]
    file.write(_GZIP_HEAD + _deflated(head))
    checksum, length = isal_zlib.crc32(head), len(head)
    for content in slices:
        data = bytes(size) if content is None else content
        file.write(_empty(size) if content is None else _deflated(content))
        checksum, length = isal_zlib.crc32(data, checksum), length + size
    end = _deflater().flush()
    file.write(end + struct.pack("<II", checksum, length & 0xFFFFFFFF))


def _deflated(data: bytes) -> bytes:
    """A piece of a raw deflate stream that ends on a byte and refers to nothing before it."""
    stream = _deflater()
    return stream.compress(data) + stream.flush(isal_zlib.Z_FULL_FLUSH)


def _deflater() -> isal_zlib.Compress:
    return isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)


@lru_cache(maxsize=4)
def _empty(size: int) -> bytes:
    return _deflated(bytes(size))


def _header(
    shape: tuple[int, ...], affine: NDArray[np.float64], slope: float, largest: float
) -> bytes:
    """Header of a single file and the four bytes that say: no extensions."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int8)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner" if _is_rigid(affine) else "unknown")
    header.set_xyzt_units("mm")
    header.set_slope_inter(slope, 0.0)
    header["cal_min"], header["cal_max"] = -largest, largest
    header["descrip"] = b"saliency: positive for, negative against"
    header["vox_offset"] = header.single_vox_offset
    return bytes(header.binaryblock) + bytes(4)


def _is_rigid(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-4))
