"""The transfer syntaxes that scanners and PACS use, as a table (PS3.6 Table A-1, PS3.5 annex A).

Lossless syntaxes are taken as they are; lossy ones are taken with a note; 8-bit baseline JPEG
cannot hold HU and is refused, as is everything that is not in the table.
"""

from __future__ import annotations

from typing import NamedTuple


class Syntax(NamedTuple):
    """How a data set and its pixels are encoded.

    `codec`: name of the decoder in `codecs.CODECS`; None for native pixels.
    """

    name: str
    explicit: bool = True
    big_endian: bool = False
    deflated: bool = False
    codec: str | None = None
    lossy: bool = False


SYNTAXES: dict[str, Syntax] = {
    "1.2.840.10008.1.2": Syntax("Implicit VR Little Endian", explicit=False),
    "1.2.840.10008.1.2.1": Syntax("Explicit VR Little Endian"),
    "1.2.840.10008.1.2.1.99": Syntax("Deflated Explicit VR Little Endian", deflated=True),
    "1.2.840.10008.1.2.2": Syntax("Explicit VR Big Endian", big_endian=True),
    "1.2.840.10008.1.2.5": Syntax("RLE Lossless", codec="rle"),
    "1.2.840.10008.1.2.4.51": Syntax("JPEG Extended 12-bit", codec="jpeg", lossy=True),
    "1.2.840.10008.1.2.4.57": Syntax("JPEG Lossless, process 14", codec="jpeg_lossless"),
    "1.2.840.10008.1.2.4.70": Syntax("JPEG Lossless, process 14 SV1", codec="jpeg_lossless"),
    "1.2.840.10008.1.2.4.80": Syntax("JPEG-LS Lossless", codec="jpeg_ls"),
    "1.2.840.10008.1.2.4.81": Syntax("JPEG-LS Near-lossless", codec="jpeg_ls", lossy=True),
    "1.2.840.10008.1.2.4.90": Syntax("JPEG 2000 Lossless", codec="jpeg_2000"),
    "1.2.840.10008.1.2.4.91": Syntax("JPEG 2000", codec="jpeg_2000", lossy=True),
    "1.2.840.10008.1.2.4.201": Syntax("HTJ2K Lossless", codec="jpeg_2000"),
    "1.2.840.10008.1.2.4.202": Syntax("HTJ2K Lossless RPCL", codec="jpeg_2000"),
    "1.2.840.10008.1.2.4.203": Syntax("HTJ2K", codec="jpeg_2000", lossy=True),
}

# SOP classes whose images are CT slices (PS3.4 Table B.5-1).
CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT Image",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT Image",
}
CLASSIC_CT = "1.2.840.10008.5.1.4.1.1.2"
DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
