"""Small studies as folders of DICOM, written within milliseconds."""

from __future__ import annotations

from pathlib import Path

from instances import ct, sop_uid, study_uid

__all__ = ["sop_uid", "study_uid", "write_study"]


def write_study(folder: Path, number: int, slices: int = 28, comment: str = "no_finding") -> Path:
    """A study of `slices` slices of 16 x 16 below `folder`."""
    out = folder / str(number)
    out.mkdir(parents=True)
    for k in range(1, slices + 1):
        (out / f"{k:03d}.dcm").write_bytes(ct(number, number=k, PatientComments=comment))
    return out
