"""A strict, bounded walk over an encoded DICOM data set (PS3.5 section 7, annex A).

It knows the few attributes that the gate needs, holds every length against the file, and counts
nesting. A general reader takes 1.5 ms a header, 0.6 s on 400 slices; this one about a tenth.
The gate runs it in the child process only; the intake walks no more than the start of a file.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from ..reasons import NotAnalysed
from .syntax import SYNTAXES, Syntax

Buffer = bytes | mmap.mmap

UNDEFINED = 0xFFFFFFFF
MAX_DEPTH = 64  # deepest nesting of sequences; CT objects have fewer than 10
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_MAX_TEXT = 1024  # bytes of a value that are looked at

_IMPLICIT_LE, _EXPLICIT_LE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

# VRs with a 32-bit length (PS3.5 Table 7.1-1), and all others.
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

# Attribute: tag -> (keyword, how to read it). t text, T texts, i integer string, F decimal
# strings, u unsigned 16 bit, q sequence (PS3.6 chapter 6).
ATTRIBUTES: dict[int, tuple[str, str]] = {
    0x00080005: ("SpecificCharacterSet", "t"),
    0x00080008: ("ImageType", "T"),
    0x00080016: ("SOPClassUID", "t"),
    0x00080018: ("SOPInstanceUID", "t"),
    0x00080020: ("StudyDate", "t"),
    0x00080022: ("AcquisitionDate", "t"),
    0x00080060: ("Modality", "t"),
    0x00080070: ("Manufacturer", "t"),
    0x00081030: ("StudyDescription", "t"),
    0x0008103E: ("SeriesDescription", "t"),
    0x00081090: ("ManufacturerModelName", "t"),
    0x00089007: ("FrameType", "T"),
    0x00100010: ("PatientName", "t"),
    0x00100020: ("PatientID", "t"),
    0x00100030: ("PatientBirthDate", "t"),
    0x00100040: ("PatientSex", "t"),
    0x00101010: ("PatientAge", "t"),
    0x00180010: ("ContrastBolusAgent", "t"),
    0x00180015: ("BodyPartExamined", "t"),
    0x00180050: ("SliceThickness", "F"),
    0x00180060: ("KVP", "t"),
    0x00181030: ("ProtocolName", "t"),
    0x00181210: ("ConvolutionKernel", "T"),
    0x00185100: ("PatientPosition", "t"),
    0x0020000D: ("StudyInstanceUID", "t"),
    0x0020000E: ("SeriesInstanceUID", "t"),
    0x00200011: ("SeriesNumber", "i"),
    0x00200012: ("AcquisitionNumber", "i"),
    0x00200013: ("InstanceNumber", "i"),
    0x00200032: ("ImagePositionPatient", "F"),
    0x00200037: ("ImageOrientationPatient", "F"),
    0x00200052: ("FrameOfReferenceUID", "t"),
    0x00204000: ("ImageComments", "t"),
    0x00209111: ("FrameContentSequence", "q"),
    0x00209113: ("PlanePositionSequence", "q"),
    0x00209116: ("PlaneOrientationSequence", "q"),
    0x00209156: ("FrameAcquisitionNumber", "u"),
    0x00280002: ("SamplesPerPixel", "u"),
    0x00280004: ("PhotometricInterpretation", "t"),
    0x00280008: ("NumberOfFrames", "i"),
    0x00280010: ("Rows", "u"),
    0x00280011: ("Columns", "u"),
    0x00280030: ("PixelSpacing", "F"),
    0x00280100: ("BitsAllocated", "u"),
    0x00280101: ("BitsStored", "u"),
    0x00280102: ("HighBit", "u"),
    0x00280103: ("PixelRepresentation", "u"),
    0x00280120: ("PixelPaddingValue", "u"),
    0x00280121: ("PixelPaddingRangeLimit", "u"),
    0x00281052: ("RescaleIntercept", "F"),
    0x00281053: ("RescaleSlope", "F"),
    0x00281054: ("RescaleType", "t"),
    0x00282110: ("LossyImageCompression", "t"),
    0x00289110: ("PixelMeasuresSequence", "q"),
    0x00289145: ("PixelValueTransformationSequence", "q"),
    0x00189329: ("CTImageFrameTypeSequence", "q"),
    0x52009229: ("SharedFunctionalGroupsSequence", "q"),
    0x52009230: ("PerFrameFunctionalGroupsSequence", "q"),
}


def unreadable(what: str) -> NotAnalysed:
    return NotAnalysed("UNREADABLE", what)


class Walker:
    """Walks one encoded data set. `pixels` becomes (offset, length) of (7FE0,0010).

    `attributes`: those that are read, as in `ATTRIBUTES`; the walk ends behind `last_tag`.
    """

    def __init__(
        self,
        data: Buffer,
        explicit: bool,
        big_endian: bool,
        attributes: Mapping[int, tuple[str, str]] = ATTRIBUTES,
        last_tag: int = UNDEFINED,
    ) -> None:
        self.data = data
        self.explicit = explicit
        self.attributes = attributes
        self.last_tag = last_tag
        order = ">" if big_endian else "<"
        self._head = struct.Struct(order + "HH2sH").unpack_from
        self._tag = struct.Struct(order + "HH").unpack_from
        self._plain = struct.Struct(order + "HHI").unpack_from
        self._u32 = struct.Struct(order + "I").unpack_from
        self._u16 = order + "H"
        self.pixels: tuple[int, int] | None = None

    def element(self, at: int) -> tuple[int, bytes, int, int]:
        """Tag, VR (b"" if implicit), length and offset of the value of the element at `at`."""
        if not self.explicit:
            group, number, length = self._plain(self.data, at)
            return group << 16 | number, b"", length, at + 8
        group, number, vr, length = self._head(self.data, at)
        tag = group << 16 | number
        if vr in _SHORT:
            return tag, vr, length, at + 8
        if vr in _LONG:
            return tag, vr, self._u32(self.data, at + 8)[0], at + 12
        if group == 0xFFFE:  # items and delimiters have no VR
            return tag, b"", self._u32(self.data, at + 4)[0], at + 8
        raise unreadable(f"unknown VR at byte {at}")

    def walk(self, at: int, end: int, depth: int = 0) -> tuple[dict[str, Any], int]:
        """Known attributes from `at` to `end` or the item's delimiter; where the walk ended."""
        if depth > MAX_DEPTH:
            raise unreadable(f"sequences nested more than {MAX_DEPTH} deep")
        found: dict[str, Any] = {}
        while at + 8 <= end:
            tag, vr, length, value = self.element(at)
            if tag == _PIXEL_DATA and depth == 0:
                self.pixels = (value, length)
                return found, end
            if tag == _ITEM_END and depth:
                return found, value
            if tag > self.last_tag and depth == 0:
                return found, end
            known = self.attributes.get(tag)
            if length == UNDEFINED or vr == b"SQ" or (known and known[1] == "q"):
                items, at = self._sequence(value, length, end, vr, depth)
                if known and known[1] == "q":
                    found[known[0]] = items
                continue
            at = value + length
            if at > end:
                raise unreadable(
                    f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) ends beyond its file"
                )
            if known:
                if known[0] in found:
                    raise unreadable(f"{known[0]} is present twice")
                found[known[0]] = self._value(known[1], value, length)
        if at != end and depth == 0:
            raise unreadable("the file ends inside an element")
        return found, at

    def _sequence(
        self, at: int, length: int, end: int, vr: bytes, depth: int
    ) -> tuple[list[dict[str, Any]], int]:
        stop = end if length == UNDEFINED else at + length
        if stop > end:
            raise unreadable("a sequence ends beyond its file")
        inner = self
        if vr == b"UN":  # PS3.5 6.2.2 note 1: of unknown VR, hence implicit little endian
            inner = Walker(self.data, False, False, self.attributes)
        items: list[dict[str, Any]] = []
        while at + 8 <= stop:
            tag, _, size, value = inner.element(at)
            if tag == _SEQUENCE_END:
                return items, value
            if tag != _ITEM:
                raise unreadable("a sequence holds something other than items")
            item_end = stop if size == UNDEFINED else value + size
            if item_end > stop:
                raise unreadable("a sequence item ends beyond its sequence")
            item, at = inner.walk(value, item_end, depth + 1)
            items.append(item)
        if length == UNDEFINED:
            raise unreadable("a sequence has no end")
        return items, stop

    def _value(self, kind: str, at: int, length: int) -> Any:
        if kind == "u":
            return struct.unpack_from(self._u16, self.data, at)[0] if length == 2 else None
        text = self.data[at : at + min(length, _MAX_TEXT)].decode("latin-1").strip(" \0\r\n\t")
        if kind == "t":
            return text
        parts = [part.strip() for part in text.split("\\")] if text else []
        if kind == "T":
            return parts
        if kind == "i":
            return _integer(parts[0]) if parts else None
        return [_decimal(part) for part in parts]


def _integer(text: str) -> int | None:
    number = _decimal(text)
    return int(number) if abs(number) < 1 << 31 else None  # NaN is not


def _decimal(text: str) -> float:
    """The number; NaN where it is none, so that the gate can tell it from a missing one."""
    try:
        return float(text) if "_" not in text else float("nan")
    except ValueError:
        return float("nan")


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with `head` (132 bytes) is DICOM.

    Either it has a preamble (PS3.10 section 7.1), or it is a bare data set that starts in group
    0008, as some archives export it.
    """
    bare = head[:2] == b"\x08\x00" and head[2:4] < b"\x19" and len(head) == 132
    return head[128:] == b"DICM" or bare


def read_meta(data: Buffer) -> tuple[dict[str, str], int]:
    """File meta information (PS3.10 section 7.1): keyword -> text; where the data set starts."""
    if not is_dicom(data[:132]):
        raise unreadable("not a DICOM file")
    if data[128:132] != b"DICM":
        explicit = bytes(data[4:6]) in _SHORT | _LONG
        return {"TransferSyntaxUID": _EXPLICIT_LE if explicit else _IMPLICIT_LE}, 0
    names = {
        0x00020002: "MediaStorageSOPClassUID",
        0x00020003: "MediaStorageSOPInstanceUID",
        0x00020010: "TransferSyntaxUID",
    }
    walker, at, found = Walker(data, explicit=True, big_endian=False), 132, {}
    while at + 8 <= len(data) and data[at : at + 2] == b"\x02\x00":
        tag, _, length, value = walker.element(at)
        at = value + length
        if at > len(data):
            raise unreadable("the file ends inside its meta information")
        if tag in names:
            text = bytes(data[value : value + min(length, _MAX_TEXT)])
            found[names[tag]] = text.decode("latin-1").strip(" \0")
    return found, at


def body(data: Buffer, start: int, syntax: Syntax, max_bytes: int) -> Buffer:
    """The data set's bytes: the file itself, or its inflated content.

    Inflating stops at 100 times the compressed size (32 MiB at least) or at `max_bytes`: CT does
    not deflate like that, bombs do. Raises NotAnalysed: TOO_LARGE, UNREADABLE.
    """
    if not syntax.deflated:
        return data
    limit = min(max_bytes, max(32 << 20, 100 * len(data)))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data[start:], limit)
    except zlib.error as error:
        raise unreadable(f"deflated data are damaged: {error}") from None
    if inflater.unconsumed_tail or len(inflated) > limit:
        raise NotAnalysed("TOO_LARGE", f"a file inflates to more than {limit >> 20} MiB")
    if not inflater.eof:
        raise unreadable("deflated data are cut")
    return inflated


def read(data: Buffer, max_bytes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(known attributes, encoding) of one DICOM file.

    Encoding: TransferSyntaxUID, media storage UIDs, `pixel_offset` and `pixel_length` into
    `body()` (None without pixel data; length `UNDEFINED` if encapsulated), `body_length`.
    Raises NotAnalysed: UNREADABLE, TOO_LARGE, UNSUPPORTED_SYNTAX.
    """
    encoding: dict[str, Any] = {"pixel_offset": None, "pixel_length": None}
    try:
        meta, start = read_meta(data)
        encoding |= meta
        uid = meta.get("TransferSyntaxUID", "")
        syntax = SYNTAXES.get(uid)
        # A syntax that is not in the table still has a readable header (PS3.5 annex A.4).
        shape = syntax or Syntax("unknown")
        content = body(data, start, shape, max_bytes)
        walker = Walker(content, shape.explicit, shape.big_endian)
        found, _ = walker.walk(0 if shape.deflated else start, len(content))
    except (struct.error, IndexError, RecursionError):
        raise unreadable("the file ends inside an element") from None
    encoding["body_length"] = len(content)
    if walker.pixels:
        encoding["pixel_offset"], encoding["pixel_length"] = walker.pixels
    return found, encoding
