"""Decoders of compressed frames, by the names that `syntax.SYNTAXES` uses. For the child only.

A frame's own header is held against the DICOM header before anything is decoded: codestreams that
claim huge images would take the memory first and be found wrong afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Codestream(NamedTuple):
    """What the codestream itself says."""

    rows: int
    columns: int
    components: int
    precision: int


def _rle(data: bytes, plane: dict[str, Any]) -> NDArray[Any]:
    """RLE (PS3.5 annex G): one segment a byte of the sample, most significant first."""
    import imagecodecs

    count, *offsets = struct.unpack_from("<16I", data)
    size = plane["rows"] * plane["columns"]
    if count != 2 or not 64 <= offsets[0] < offsets[1] < len(data):
        raise ValueError(f"{count} segments at {offsets[:2]}")
    parts = [data[offsets[0] : offsets[1]], data[offsets[1] :]]
    planes = [np.frombuffer(imagecodecs.packbits_decode(part), np.uint8) for part in parts]
    if min(map(len, planes)) < size:
        raise ValueError("a segment is too short")
    high, low = (p[:size].astype(np.uint16) for p in planes)
    return (high << 8 | low).reshape(plane["rows"], plane["columns"])


def _jpeg(name: str) -> Callable[[bytes, dict[str, Any]], NDArray[Any]]:
    def decode(data: bytes, plane: dict[str, Any]) -> NDArray[Any]:
        import imagecodecs

        said = codestream(data)
        if (said.rows, said.columns) != (plane["rows"], plane["columns"]) or said.components != 1:
            raise ValueError(f"codestream of {said.rows} x {said.columns} x {said.components}")
        if said.precision > 16:
            raise ValueError(f"codestream of {said.precision} bits")
        return np.asarray(getattr(imagecodecs, name)(data))

    return decode


CODECS: dict[str, Callable[[bytes, dict[str, Any]], NDArray[Any]]] = {
    "rle": _rle,
    "jpeg": _jpeg("jpeg8_decode"),
    "jpeg_lossless": _jpeg("ljpeg_decode"),
    "jpeg_ls": _jpeg("jpegls_decode"),
    "jpeg_2000": _jpeg("jpeg2k_decode"),
}


def codestream(data: bytes) -> Codestream:
    """Size as the codestream's own header says: JPEG and JPEG-LS (SOFn), JPEG 2000 (SIZ)."""
    siz = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if siz >= 0:
        x1, y1, x0, y0 = struct.unpack_from(">4I", data, siz + 8)
        components, depth = struct.unpack_from(">HB", data, siz + 40)
        return Codestream(y1 - y0, x1 - x0, components, (depth & 0x7F) + 1)
    if data[:2] != b"\xff\xd8":
        raise ValueError("no JPEG codestream")
    at = 2
    while at + 10 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFFF7 or (
            0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)
        ):
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, at + 4)
            return Codestream(rows, columns, components, precision)
        at += 2 + length if marker != 0xFFFF else 1
    raise ValueError("the codestream has no frame header")
