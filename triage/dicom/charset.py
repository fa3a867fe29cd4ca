"""Text of header values: bytes and SpecificCharacterSet -> str (PS3.3 C.12.1.1.2).

Values come from strangers: what cannot be decoded becomes U+FFFD, what cannot be printed a space.
Markup is left alone; whoever shows a name escapes it.
"""

from __future__ import annotations

import re

# Defined term -> Python codec. With code extensions (ISO 2022) the escape sequences are part of the
# text: the codecs of East Asia read them, and are tried with them first.
CODECS: dict[str, str] = {
    "": "latin-1",  # ASCII by the standard; what comes is often Latin-1 all the same
    "ISO_IR 6": "latin-1",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 166": "iso8859-11",
    "ISO_IR 192": "utf-8",
    "ISO_IR 203": "iso8859-15",
    "GB18030": "gb18030",
    "GBK": "gbk",
}
ESCAPES: tuple[tuple[bytes, str], ...] = (
    (b"\x1b$)C", "euc_kr"),  # ISO 2022 IR 149
    (b"\x1b$)A", "gb2312"),  # ISO 2022 IR 58
    (b"\x1b)I", "shift_jis"),  # ISO 2022 IR 13
    (b"\x1b$B", "iso2022_jp_2"),  # ISO 2022 IR 87
    (b"\x1b$@", "iso2022_jp_2"),
    (b"\x1b$(D", "iso2022_jp_2"),  # ISO 2022 IR 159
)
_ESCAPE = re.compile(rb"\x1b[()\-$][()]?[A-Z@]")
MAX_LENGTH = 512  # characters that are kept; no attribute may have more than 3 x 64


def decoded(value: bytes, character_set: str) -> str:
    """`value` as clean text; `character_set`: (0008,0005) as written."""
    return clean(_decoded(value, character_set))


def _decoded(value: bytes, character_set: str) -> str:
    for escape, codec in ESCAPES:
        if escape in value:
            if codec != "iso2022_jp_2":
                value = _ESCAPE.sub(b"", value)
            return value.decode(codec, "replace")
    value = _ESCAPE.sub(b"", value)
    term = character_set.split("\\", 1)[0].strip().replace("ISO 2022 IR", "ISO_IR")
    return value.decode(CODECS.get(term, "latin-1"), "replace")


def clean(text: str) -> str:
    """One line of printable text, at most `MAX_LENGTH` characters."""
    if text.isprintable():
        return text.strip()[:MAX_LENGTH]
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * MAX_LENGTH])
    return printable.strip()[:MAX_LENGTH]
