"""Simulated patients as DICOM, made once a session, and cheap variants of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

from .running import ROOT

# Slices of 1 mm: about 470 of them. `triage simulate` draws thicker ones for most patients.
THIN = """
import sys; from pathlib import Path
from triage.simulate import acquisition
acquisition.STEPS.clear(); acquisition.STEPS[1.0] = 1.0
from triage.simulate.study import write_dataset
write_dataset(Path(sys.argv[1]), 1, 6, injured=True, matrix=512)
"""


def simulate(out: Path, *options: str) -> list[Path]:
    """The slices of one simulated patient, from the feet upwards."""
    command = ["-m", "triage.cli.main", "simulate", str(out), "--patients", "1", *options]
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return slices_below(out)


def simulate_thin(out: Path, slices: int) -> list[Path]:
    """A patient of 512 x 512 and that many slices of 1 mm (400: 210 MB)."""
    subprocess.run([sys.executable, "-c", THIN, str(out)], check=True, cwd=ROOT)
    paths = slices_below(out)
    for path in paths[slices:]:
        path.unlink()
    return paths[:slices]


def slices_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"), key=lambda p: int(p.stem))


def study_uid(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


def copy_as_new_study(slices: Sequence[Path], out: Path, number: int) -> str:
    """The same images as another patient's study below `out`; returns its StudyInstanceUID."""
    out.mkdir(parents=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for k, path in enumerate(slices):
        data = pydicom.dcmread(path)
        data.StudyInstanceUID, data.SeriesInstanceUID = study, series
        data.FrameOfReferenceUID = frame
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.PatientID, data.PatientName = f"DRILL-{number}", f"DRILL^{number}"
        data.save_as(out / f"{k:04d}.dcm")
    return str(study)
