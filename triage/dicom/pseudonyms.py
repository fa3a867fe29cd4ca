"""Names and UIDs that stand for the real ones: the same key gives the same ones.

Keyed hashes (HMAC-SHA-256, RFC 2104), so that studies of one patient stay together and references
between images hold, and nobody without the key can try out names. Whoever has the key and the
original can find the pseudonym: the site keeps the key, research does not get it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from datetime import date, timedelta

from pydicom import config
from pydicom.uid import UID

KEY_BYTES = 32
MOST_DAYS = 3650  # dates go back by up to ten years


class Pseudonyms:
    """What one site's key makes of identities. `key`: at least 32 random bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError(f"Expected a key of at least {KEY_BYTES} bytes, got {len(key)}")
        self._key = key

    def _hash(self, kind: str, text: str) -> bytes:
        return hmac.digest(self._key, f"{kind}\0{text}".encode(), hashlib.sha256)

    def uid(self, original: str) -> str:
        """2.25.<UUID as integer> (PS3.5 B.2; RFC 9562, version 8). Registered UIDs, such as those
        of SOP classes and of well-known frames of reference, stay."""
        text = original.strip(" \0")
        if UID(text, config.IGNORE).name != text:
            return text
        bits = int.from_bytes(self._hash("uid", text)[:16], "big")
        bits = bits & ~(0xF << 76) | 8 << 76  # version
        bits = bits & ~(0x3 << 62) | 2 << 62  # variant
        return f"2.25.{uuid.UUID(int=bits).int}"

    def patient(self, identifier: str) -> str:
        """17 letters and digits, an R first; usable as PatientID, PatientName and file name."""
        return "R" + base64.b32encode(self._hash("patient", identifier)[:10]).decode("ascii")

    def days(self, identifier: str) -> int:
        """How many days the dates of this patient are set back: 1 to `MOST_DAYS`."""
        number = int.from_bytes(self._hash("days", identifier)[:8], "big")
        return 1 + number % MOST_DAYS


def shifted(text: str, days: int) -> str:
    """A DA or the date of a DT (PS3.5 6.2), so many days earlier, the rest as it is; "" where it is
    none. Offsets from UTC are left out."""
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:8])) - timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    clock = text[8:].partition("+")[0].partition("-")[0].strip()
    if not text[:8].isdecimal() or (clock and not clock.replace(".", "", 1).isdecimal()):
        return ""
    return day.strftime("%Y%m%d").rjust(8, "0") + clock[:13]
