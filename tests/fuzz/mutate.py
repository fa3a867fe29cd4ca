"""Damages valid bytes. The same seed gives the same damage."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
COUNTS = (1, 1, 1, 2, 4, 16)  # places that are damaged in one input
# What has surprised parsers before: numbers that are none, paths, markup, control characters.
WORDS = (
    *(b"", b"NaN", b"-inf", b"1e999", b"-0", b"0x10", b"\xef\xbb\xbf", b"\x00", b"\r\n\r\n"),
    *(b"../../../etc/passwd", b"<script>alert(1)</script>", b"=cmd|' /C calc'!A0", b"%s%n%x"),
    *(b"\\", b"\\\\\\", b"^" * 70, b"9" * 80, b"1.2." * 40, b"\xff\xfe", b"\x1b$B", b"{}", b"[[[["),
    *(b"DICM", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"null", b'"', b"--", b"ISO_IR 192"),
)
VRS = (
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OW PN SH SL SQ SS ST TM UC UI UL UN US UT"
).split()
LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"))

Dice = random.Random


def damaged(dice: Dice, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """`data` with damage in one place or in some; `others`: valid inputs to splice with."""
    out = bytearray(data)
    for _ in range(dice.choice(COUNTS)):
        dice.choice(OPERATIONS)(dice, out, others)
    return bytes(out)


def _at(dice: Dice, out: bytearray) -> int:
    """A place, as often in the first kilobyte, where headers are, as anywhere."""
    end = len(out) if dice.random() < 0.5 else min(len(out), 1024)
    return dice.randrange(end) if end else 0


def _flip(dice: Dice, out: bytearray, _others: Sequence[bytes]) -> None:
    if out:
        out[_at(dice, out)] ^= 1 << dice.randrange(8)


def _number(dice: Dice, out: bytearray, _others: Sequence[bytes]) -> None:
    kind, bits = dice.choice((("B", 8), ("<H", 16), (">H", 16), ("<I", 32), (">I", 32)))
    value = struct.pack(kind, dice.choice(EDGES) & ((1 << bits) - 1))
    at = _at(dice, out)
    out[at : at + len(value)] = value


def _cut_end(dice: Dice, out: bytearray, _others: Sequence[bytes]) -> None:
    del out[_at(dice, out) :]


def _cut(dice: Dice, out: bytearray, _others: Sequence[bytes]) -> None:
    at = _at(dice, out)
    del out[at : at + dice.choice((1, 2, 4, 100, 5000))]


def _double(dice: Dice, out: bytearray, _others: Sequence[bytes]) -> None:
    at = _at(dice, out)
    part = out[at : at + dice.choice((1, 8, 64, 1000))]
    out[at:at] = part * dice.choice((1, 1, 3, 30))


def _noise(dice: Dice, out: bytearray, _others: Sequence[bytes]) -> None:
    at = _at(dice, out)
    out[at : at + dice.choice((0, 8))] = dice.randbytes(dice.choice((1, 4, 32, 300)))


def _word(dice: Dice, out: bytearray, _others: Sequence[bytes]) -> None:
    word, at = dice.choice(WORDS), _at(dice, out)
    out[at : at + dice.choice((0, len(word)))] = word


def _splice(dice: Dice, out: bytearray, others: Sequence[bytes]) -> None:
    if others:
        other = dice.choice(others)
        out[_at(dice, out) :] = other[dice.randrange(len(other) + 1) :]


Operation = Callable[[Dice, bytearray, Sequence[bytes]], None]
OPERATIONS: tuple[Operation, ...] = (
    *(_flip, _flip, _number, _number, _cut_end, _cut, _double, _noise, _word, _splice),
)


# ---- DICOM: damage that knows what an element is (Explicit VR Little Endian, PS3.5 chapter 7)


def damaged_dicom(dice: Dice, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A DICOM file with damaged elements, or with damaged bytes."""
    if dice.random() < 0.4:
        return damaged(dice, data, others)
    out = data
    for _ in range(dice.choice(COUNTS)):
        found = elements(out)
        if not found:
            return damaged(dice, out, others)
        start, end = dice.choice(found)
        out = out[:start] + dice.choice(ON_ELEMENTS)(dice, out[start:end]) + out[end:]
    return out


def elements(data: bytes) -> list[tuple[int, int]]:
    """(start, end) of the elements of a file, as far as they can be followed."""
    at, found = 132, []
    while at + 8 <= len(data):
        vr = data[at + 4 : at + 6]
        head = 12 if vr in LONG else 8
        if (vr not in VRS and vr not in LONG) or at + head > len(data):
            break
        length = struct.unpack_from(
            "<I" if head == 12 else "<H", data, at + head - (4 if head == 12 else 2)
        )[0]
        end = min(at + head + length, len(data))
        found.append((at, end))
        at = end
    return found


def _header(element: bytes) -> int:
    return 12 if element[4:6] in LONG else 8


def _lie(dice: Dice, element: bytes) -> bytes:
    """Another length than the value has."""
    head = _header(element)
    length = dice.choice((*EDGES, len(element) - head + 2, max(0, len(element) - head - 2)))
    if head == 12:
        return element[:8] + struct.pack("<I", length & 0xFFFFFFFF) + element[12:]
    return element[:6] + struct.pack("<H", length & 0xFFFF) + element[8:]


def _value(dice: Dice, element: bytes) -> bytes:
    """Another value, with its true length."""
    value = dice.choice((*WORDS, dice.randbytes(dice.choice((1, 2, 4, 16, 70)))))
    return _built(element, value + b" " * (len(value) % 2))


def _nudge(dice: Dice, element: bytes) -> bytes:
    """A value that is nearly right."""
    head = _header(element)
    value = bytearray(element[head:])
    _flip(dice, value, ())
    return element[:head] + bytes(value)


def _other_vr(dice: Dice, element: bytes) -> bytes:
    return element[:4] + dice.choice(VRS) + element[6:]


def _other_tag(dice: Dice, element: bytes) -> bytes:
    tag = dice.choice(
        (0x00280010, 0x00200032, 0x7FE00010, 0xFFFEE000, 0x00081140, dice.getrandbits(32))
    )
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + element[4:]


def _nested(dice: Dice, element: bytes) -> bytes:
    """The element inside items of items."""
    for _ in range(dice.choice((1, 3, 60, 400))):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(element)) + element
        element = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(item)) + item
    return element


def _built(element: bytes, value: bytes) -> bytes:
    if _header(element) == 12:
        return element[:8] + struct.pack("<I", len(value)) + value
    return element[:6] + struct.pack("<H", len(value)) + value


ON_ELEMENTS: tuple[Callable[[Dice, bytes], bytes], ...] = (
    *(_lie, _lie, _value, _value, _nudge, _nudge, _other_vr, _other_tag, _nested),
    lambda _dice, _element: b"",
    lambda _dice, element: element * 2,
    lambda dice, element: element[: dice.randrange(len(element) + 1)],
)
