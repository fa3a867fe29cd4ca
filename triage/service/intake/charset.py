"""Text of header values: see `triage.dicom.charset`."""

from triage.dicom.charset import CODECS, ESCAPES, MAX_LENGTH, clean, decoded

__all__ = ["CODECS", "ESCAPES", "MAX_LENGTH", "clean", "decoded"]
