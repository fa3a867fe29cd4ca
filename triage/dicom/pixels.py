"""From encoded pixel data to HU. Runs in the child process only: decoders meet hostile bytes here.

PS3.5 section 8 and annex A.4 (encapsulation), PS3.3 C.7.6.3 (image pixel), C.11.1 (rescale).
"""

from __future__ import annotations

import mmap
import struct
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..reasons import NotAnalysed
from . import dataset
from .codecs import CODECS
from .syntax import SYNTAXES

Bits = NDArray[np.uint16]  # stored bits of one frame, (rows, columns)

AIR_HU = -1024
# Below this, a value marks the outside of the reconstruction circle, noise does not get there.
PADDING_HU = -1500
# A padding value that means more than this in HU is taken for a wrong header, not for padding.
MAX_PADDING_HU = -900

_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD


class NeedsFloatError(Exception):
    """The HU do not fit into int16."""


# ---- frames


def _native_frame(data: dataset.Buffer, plane: dict[str, Any]) -> Bits:
    count = plane["rows"] * plane["columns"]
    offset = plane["offset"] + plane["frame"] * count * 2
    if plane["length"] == dataset.UNDEFINED:
        raise NotAnalysed("PIXELS_UNDECODABLE", "encapsulated pixels in a native transfer syntax")
    if offset + count * 2 > len(data):
        raise NotAnalysed("PIXELS_TRUNCATED")
    order = ">u2" if SYNTAXES[plane["syntax"]].big_endian else "<u2"
    # A copy: no array may look into a map that is closed.
    bits = np.array(np.frombuffer(data, order, count, offset), np.uint16)
    return bits.reshape(plane["rows"], plane["columns"])


def fragments(data: dataset.Buffer, at: int) -> tuple[list[int], list[tuple[int, bytes]]]:
    """Basic offset table and [(offset, bytes)] of the fragments of encapsulated pixel data."""
    items: list[tuple[int, bytes]] = []
    first = None
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, at)
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            if not items:
                break
            table = items[0][1]
            return list(struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])), [
                (offset - (first or 0), part) for offset, part in items[1:]
            ]
        if tag != _ITEM:
            raise NotAnalysed("PIXELS_UNDECODABLE", "something other than fragments")
        if at + 8 + length > len(data):
            raise NotAnalysed("PIXELS_TRUNCATED", "a fragment ends beyond its file")
        if len(items) == 1:
            first = at
        items.append((at, data[at + 8 : at + 8 + length]))
        at += 8 + length
    raise NotAnalysed("PIXELS_TRUNCATED", "the fragments have no end")


def _encapsulated_frames(data: dataset.Buffer, plane: dict[str, Any]) -> list[bytes]:
    if plane["length"] != dataset.UNDEFINED:
        raise NotAnalysed("PIXELS_UNDECODABLE", "native pixels in a compressed transfer syntax")
    table, parts = fragments(data, plane["offset"])
    frames = plane["frames"]
    if frames == 1:
        return [b"".join(part for _, part in parts)]
    if len(parts) == frames:
        return [part for _, part in parts]
    if len(table) != frames:
        raise NotAnalysed("PIXELS_UNDECODABLE", f"{len(parts)} fragments for {frames} frames")
    bounds = [*table, 1 << 62]
    return [
        b"".join(part for offset, part in parts if start <= offset < stop)
        for start, stop in pairwise(bounds)
    ]


def _compressed_frame(data: bytes, plane: dict[str, Any]) -> Bits:
    try:
        decoded = CODECS[SYNTAXES[plane["syntax"]].codec or ""](data, plane)
    except (MemoryError, NotAnalysed):
        raise
    except Exception as error:
        # imagecodecs raises an exception class of its own for each codec
        raise NotAnalysed("PIXELS_UNDECODABLE", f"{type(error).__name__}: {error}"[:200]) from None
    if decoded.shape != (plane["rows"], plane["columns"]) or decoded.dtype.itemsize > 2:
        raise NotAnalysed("PIXELS_UNDECODABLE", f"decoded to {decoded.shape} {decoded.dtype}")
    wide = np.int16 if decoded.dtype.kind == "i" else np.uint16
    return np.ascontiguousarray(decoded, wide).view(np.uint16)


# ---- stored bits to HU


def stored_values(bits: Bits, plane: dict[str, Any]) -> NDArray[np.int32]:
    """Stored values: sign and bits stored applied; (rows, columns).

    Signed values of fewer than 16 bits may come with the sign extended or with high bits of zero.
    Anything else in the high bits contradicts the header, the padding value excepted. Raises
    NotAnalysed: PIXELS_INCONSISTENT.
    """
    stored, signed = plane["bits_stored"], plane["signed"]
    mask = (1 << stored) - 1
    sign = 1 << stored - 1
    if not signed and not int(bits.max()) >> stored:  # nothing above the bits stored
        return bits.astype(np.int32)
    if stored < 16:
        high = bits & np.uint16(0xFFFF ^ mask)
        if high.any():
            bad = high != 0
            if signed:
                extended = np.where(bits & np.uint16(sign), np.uint16(0xFFFF ^ mask), np.uint16(0))
                bad &= high != extended
            if plane["padding"] is not None:
                bad &= bits != plane["padding"]
            if bad.any():
                text = f"values need more than the {stored} bits stored"
                raise NotAnalysed("PIXELS_INCONSISTENT", text)
    if not signed:  # what is above is padding
        return (bits & np.uint16(mask)).astype(np.int32)
    if stored == 16:
        return bits.view(np.int16).astype(np.int32)
    return np.asarray(((bits & np.uint16(mask)).astype(np.int32) ^ sign) - sign, np.int32)


def padding_bounds(plane: dict[str, Any]) -> tuple[int, int] | None:
    """Lowest and highest 16-bit stored value that is padding (PS3.3 C.7.5.1.1.2), None if none.

    A value that would mean tissue is not believed: 0 is written there by some for lack of better.
    """
    if plane["padding"] is None:
        return None
    ends = [plane["padding"], plane["padding_limit"]]
    values = [v - 65536 if plane["signed"] and v > 32767 else v for v in ends if v is not None]
    hu = [v * plane["slope"] + plane["intercept"] for v in values]
    return (min(values), max(values)) if max(hu) <= MAX_PADDING_HU else None


def to_hu(
    bits: Bits, plane: dict[str, Any], as_float: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """HU (rows, columns) as int16 or float32, and where it is padding (there HU are `AIR_HU`)."""
    values = stored_values(bits, plane)
    slope, intercept = plane["slope"], plane["intercept"]
    hu: NDArray[Any]
    if as_float:
        hu = (values * np.float64(slope) + intercept).astype(np.float32)
    else:
        hu = values if slope == 1 else values * np.int32(slope)
        hu += np.int32(intercept)
    if not as_float and hu.max() > 32767:
        raise NeedsFloatError
    padding: NDArray[np.bool_] = np.zeros(bits.shape, bool)
    bounds = padding_bounds(plane)
    if not bounds and hu.min() > PADDING_HU:
        return hu, padding
    if bounds:
        whole = bits.view(np.int16) if plane["signed"] else bits
        for seen in (whole, values):  # some write it wider than the bits stored
            padding |= (seen >= bounds[0]) & (seen <= bounds[1])
    low = hu <= PADDING_HU
    _check_wrapped(bits, hu[low & ~padding], plane)
    padding |= low
    if padding.any():
        hu[padding] = AIR_HU
    return hu, padding


def _check_wrapped(bits: Bits, low: NDArray[Any], plane: dict[str, Any]) -> None:
    """Refuses unsigned values under a header that calls them signed.

    `low`: HU (n,) below any tissue and not declared as padding. Padding is one value; many values
    that only became negative because the sign was not extended are bright voxels that wrapped.
    """
    stored = plane["bits_stored"]
    if not plane["signed"] or stored == 16 or not low.size or bits.max() >> stored:
        return
    if len(np.unique(low)) > 4:
        text = f"signed values of {stored} bits reach {low.min():g} HU"
        raise NotAnalysed("PIXELS_INCONSISTENT", text)


# ---- the child's task


def decode_slices(request: dict[str, Any], out: mmap.mmap | None) -> dict[str, Any]:
    """Task of the child. Request: `planes` (in slice order), `threads`, `max_bytes`.

    Writes into `out` the HU (slices, rows, columns), int16 if exact, else float32, and after
    4 bytes a voxel the padding as one byte a voxel. Answer: `dtype`, `padding` (whether there is
    any), `blank` (slices without any contrast). Raises NotAnalysed: PIXELS_TRUNCATED,
    PIXELS_UNDECODABLE, PIXELS_INCONSISTENT, UNREADABLE.
    """
    planes = request["planes"]
    exact = all(float(p[k]).is_integer() for p in planes for k in ("slope", "intercept"))
    try:
        return _decode_all(request, out, as_float=not exact)
    except NeedsFloatError:
        return _decode_all(request, out, as_float=True)


def _decode_all(request: dict[str, Any], out: mmap.mmap | None, as_float: bool) -> dict[str, Any]:
    planes = request["planes"]
    shape = (len(planes), planes[0]["rows"], planes[0]["columns"])
    size = shape[0] * shape[1] * shape[2]
    dtype = np.float32 if as_float else np.int16
    memory = out if out is not None else bytearray(5 * size)
    hu = np.frombuffer(memory, dtype, size).reshape(shape)
    padding = np.frombuffer(memory, np.bool_, size, 4 * size).reshape(shape)

    def one_file(indices: list[int]) -> tuple[list[int], bool]:
        blank, padded = [], False
        for k, bits in zip(indices, _frames([planes[i] for i in indices], request), strict=True):
            hu[k], outside = to_hu(bits, planes[k], as_float)
            if outside.any():
                padding[k], padded = outside, True
            if hu[k].min() == hu[k].max():
                blank.append(k)
        return blank, padded

    ranks = sorted(range(len(planes)), key=lambda i: (planes[i]["path"], i))
    files = [list(group) for _, group in groupby(ranks, key=lambda i: planes[i]["path"])]
    with ThreadPoolExecutor(request["threads"]) as pool:
        results = list(pool.map(one_file, files))
    return {
        "dtype": np.dtype(dtype).name,
        "padding": any(padded for _, padded in results),
        "blank": sorted(k for blank, _ in results for k in blank),
    }


def _frames(planes: list[dict[str, Any]], request: dict[str, Any]) -> Any:
    """Yields the stored bits of each of `planes`, which lie in one file."""
    first = planes[0]
    path = Path(first["path"])
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) != (first["file_bytes"], first["modified_ns"]):
        raise NotAnalysed("UNREADABLE", "a file has changed while it was read")
    syntax = SYNTAXES[first["syntax"]]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        start = dataset.read_meta(raw)[1] if syntax.deflated else 0
        data = dataset.body(raw, start, syntax, request["max_bytes"])
        if syntax.codec is None:
            for plane in planes:
                yield _native_frame(data, plane)
            return
        try:
            streams = _encapsulated_frames(data, first)
        except struct.error:
            raise NotAnalysed("PIXELS_TRUNCATED") from None
    for plane in planes:
        yield _compressed_frame(streams[plane["frame"]], plane)
