"""UIDs of our objects: the same for the same analysis, so that a second sending adds nothing."""

from __future__ import annotations

import uuid

NAMESPACE = uuid.UUID("6f0a3b0e-5d43-5a0b-9c56-6b1e4f1d7a52")


def uid(analysis: str, what: str) -> str:
    """2.25.<UUID as integer> (PS3.5 annex B.2) of one object of one analysis."""
    return f"2.25.{identifier(analysis, what).int}"


def identifier(analysis: str, what: str) -> uuid.UUID:
    """A name-based UUID (RFC 9562, version 5); messages use it, too."""
    return uuid.uuid5(NAMESPACE, f"{analysis}/{what}")
