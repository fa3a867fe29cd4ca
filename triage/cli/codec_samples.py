"""One image of 8 x 8 in each compression, for `triage doctor`: do the decoders really work?

The image is 37 x + 211 y in 12 bits. The codestreams were made once, with imagecodecs.
"""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap

SIZE = 8
LOSSY_ERROR = 4  # of 1736: what the JPEG sample loses

JPEG_2000 = (
    "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1IADAAAAAEAAAQEAAH/XAAEQID/ZAAl"
    "AAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAAB4AAH/k9/4kzASK2cWj4+hghgWXO8hxApH"
    "A/zfc3ZzvuhrdsExVqfW7TRcVhyZ7dXMfgCUPzEH7yWgpHGNLDTy0k9gU1ORJXGl8Jckyt04KaISa0pG9U62a28f20Zo"
    "ibQEavV6vV5HzETiJxE4ib//2Q=="
)
HTJ2K = (
    "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB"
    "/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAFcAAf+TwAAmkfsFB3QA"
    "AADAABLAABKAUAGHdACEAod0AMAAE0AAE4Ak0gECdAC00/4Ag1QAwAAqIAAVQAiCIKpwgnUApElJScAxgey2AP/Z"
)
JPEG_LS = (
    "/9j/6AAgU1BJRkYAAgAAAQAAAAgAAAAIChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQAAgACAEBEQD/+AANAf//ABIA"
    "QwEUAED/2gAIAQEAAAAAokxJiTEeRZDoNpolRIkaRKFQIlWmn08nU4trSJFpLKwrqyqqJG6KmpKKgnp6ROgnLVqxYsUL"
    "nq1apUqVKBzlKlSpUKE+/9k="
)
JPEG_LOSSLESS = (
    "/9j/xAAXAAEBAQEAAAAAAAAAAAAAAAAHCAYM/8MACwwACAAIAQARAP/aAAgBAAAGAADn/wDS6XS6XS6XS2m1NTU1NTU1"
    "Wm1NTU1NTU1Wm1NTU1NTU1Wm1NTU1NTU1Wm1NTU1NTU1Wm1NTU1NTU1Wm1NTU1NTU1D/2Q=="
)
JPEG_12_BIT = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
    "AQEBAQEBAQEBAQEBAQEBAQEBAQH/wQALDAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAADv/EABwQAAAGAwAAAAAA"
    "AAAAAAAAAAAKDCk3R1Vlc//aAAgBAQAAPwA2PlXUH1HDNuKofjoR/9k="
)
BY_CODEC = {
    "jpeg": JPEG_12_BIT,
    "jpeg_lossless": JPEG_LOSSLESS,
    "jpeg_ls": JPEG_LS,
    "jpeg_2000": JPEG_2000,
}


def sample(name: str, codec: str) -> bytes:
    """Codestream of the image for the transfer syntax of that name and codec."""
    if codec == "rle":
        return _rle()
    return b64decode(HTJ2K if name.startswith("HTJ2K") else BY_CODEC[codec])


def _values() -> list[int]:
    return [37 * x + 211 * y for y in range(SIZE) for x in range(SIZE)]


def _rle() -> bytes:
    """PS3.5 annex G: header of 16 words, then the high and the low bytes as one run each."""
    high, low = (bytes(v >> shift & 255 for v in _values()) for shift in (8, 0))
    run = bytes([len(high) - 1])
    parts = [run + high + b"\0", run + low + b"\0"]  # padded to even length
    return struct.pack("<16I", 2, 64, 64 + len(parts[0]), *[0] * 13) + b"".join(parts)


def decode_all(_request: dict[str, Any], _out: mmap.mmap | None) -> dict[str, Any]:
    """Task of the reading process. Answer: `faults`, transfer syntax UID -> what went wrong."""
    import numpy as np

    from triage.dicom.codecs import CODECS
    from triage.dicom.syntax import SYNTAXES

    expected = np.array(_values()).reshape(SIZE, SIZE)
    faults = {}
    for uid, syntax in SYNTAXES.items():
        if syntax.codec is None:
            continue
        try:
            image = CODECS[syntax.codec](
                sample(syntax.name, syntax.codec), {"rows": SIZE, "columns": SIZE}
            )
            error = int(np.abs(image.astype(int) - expected).max())
        except Exception as problem:  # each codec has an exception class of its own
            faults[uid] = f"{type(problem).__name__}: {problem}"
        else:
            if error > (LOSSY_ERROR if syntax.codec == "jpeg" else 0):
                faults[uid] = f"decodes to something else (off by {error})"
    return {"faults": faults}
