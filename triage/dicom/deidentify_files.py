"""De-identified copies of image files: the child's task (see `deidentify` for the headers).

Pixels are decoded and written uncompressed, so that neither a compressed stream's comments nor
unused bits nor bytes behind the pixels travel along.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from ..reasons import NotAnalysed
from .deidentify import LeftOut, deidentified, identity, is_simulated, texts
from .headers import made_up_uid, read_headers
from .pixels import _frames, stored_values
from .pseudonyms import Pseudonyms
from .syntax import SYNTAXES

# Of our own (PS3.7 D.3.3.2): the implementation that wrote a file, not the one that made the image.
IMPLEMENTATION_UID = UID(made_up_uid("trauma-ct-triage de-identification"))
IMPLEMENTATION_NAME = "TRIAGE_DEIDENT"
MAX_SIDE = 4096
PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")


def deidentify_files(request: dict[str, Any], _out: mmap.mmap | None) -> dict[str, Any]:
    """Task of the child. Request: `files` (paths), `folder` (where the copies go), `key`
    (hexadecimal), `dates` (shifted?), `max_bytes`.

    Writes `<folder>/<patient>/<series>/<number>.dcm`. Answer: `patient`, `written` (number),
    `left_out` (code -> number), `unsaid` (images that do not say whether annotations are burnt in),
    `simulated`, `uids` (old -> new of studies, series and images).
    """
    names = Pseudonyms(bytes.fromhex(request["key"]))
    answer: dict[str, Any] = {
        **{"patient": "", "written": 0, "left_out": {}, "unsaid": 0, "simulated": False},
        "uids": {},
    }
    first: str | None = None
    for path in request["files"]:
        try:
            plane = _plane(path, request["max_bytes"])
            data = dcmread(path, stop_before_pixels=True, force=True)
            if plane["deidentified"]:  # with all UIDs blanked, those of the file's meta information
                _name(data, plane)
            who = identity(data)
            if first is not None and who != first:
                raise LeftOut("other_patient")
            new = deidentified(data, names, dates=request["dates"])
            _add_pixels(new, plane, request["max_bytes"])
            _write(new, Path(request["folder"]))
            first = who
        except LeftOut as reason:
            answer["left_out"][reason.code] = answer["left_out"].get(reason.code, 0) + 1
            continue
        except (MemoryError, OSError):
            raise
        except Exception:  # whatever a hostile header makes pydicom raise
            answer["left_out"]["unreadable"] = answer["left_out"].get("unreadable", 0) + 1
            continue
        answer["written"] += 1
        answer["patient"] = str(new.PatientID)
        answer["unsaid"] += not texts(data, "BurnedInAnnotation")
        answer["simulated"] |= is_simulated(data)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            answer["uids"][texts(data, keyword)[0]] = str(new[keyword].value)
    return answer


def _plane(path: str, max_bytes: int) -> dict[str, Any]:
    """The one image of a file, as `headers.Slice` describes it. Raises LeftOut."""
    found = read_headers({"paths": [path], "max_bytes": max_bytes, "max_slices": 1}, None)
    if found["others"] or len(found["slices"]) > 1:
        raise LeftOut("not_ct")
    if not found["slices"] or not _plain(found["slices"][0]):
        raise LeftOut("unreadable")
    plane: dict[str, Any] = found["slices"][0]
    return plane | {"offset": plane["pixel_offset"], "length": plane["pixel_length"]}


def _name(data: Dataset, plane: dict[str, Any]) -> None:
    data.SOPClassUID, data.SOPInstanceUID = plane["sop_class"], plane["sop_instance"]
    data.StudyInstanceUID, data.SeriesInstanceUID = plane["study"], plane["series"]


def _add_pixels(new: Dataset, plane: dict[str, Any], max_bytes: int) -> None:
    """Decoded stored values, 16 bits each, little endian; and what describes them."""
    try:
        (bits,) = _frames([plane], {"max_bytes": max_bytes})
        values = stored_values(bits, plane)
    except NotAnalysed:
        raise LeftOut("unreadable") from None
    stored, signed = plane["bits_stored"], int(plane["signed"])
    pixels = values.astype("<i2" if signed else "<u2")
    if plane["padding"] is not None and plane["padding"] >> stored:  # wider than the bits stored
        wide = bits == plane["padding"]
        pixels.view("<u2")[wide] = bits[wide]
        stored = 16
    new.SamplesPerPixel, new.PhotometricInterpretation = 1, plane["photometric"]
    new.Rows, new.Columns = plane["rows"], plane["columns"]
    new.BitsAllocated, new.BitsStored, new.HighBit = 16, stored, stored - 1
    new.PixelRepresentation = signed
    for keyword, value in zip(PADDING, (plane["padding"], plane["padding_limit"]), strict=True):
        if value is not None:
            setattr(new, keyword, value - 65536 if signed and value > 32767 else value)
    if plane["lossy"]:
        new.LossyImageCompression = "01"
    new.PixelData = pixels.tobytes()
    new["PixelData"].VR = "OW"


def _plain(plane: dict[str, Any]) -> bool:
    sides = plane["rows"], plane["columns"]
    return (
        plane["frames"] == 1
        and plane["syntax"] in SYNTAXES
        and plane["pixel_offset"] is not None
        and all(isinstance(n, int) and 0 < n <= MAX_SIDE for n in sides)
        and plane["samples"] == 1
        and plane["bits_allocated"] == 16
        and isinstance(plane["bits_stored"], int)
        and 1 < plane["bits_stored"] <= 16
        and plane["signed"] in (0, 1)
        and plane["photometric"] in ("MONOCHROME1", "MONOCHROME2")
    )


def _write(new: Dataset, folder: Path) -> None:
    """Names are made of pseudonyms and numbers alone."""
    place = folder / str(new.PatientID) / str(new.SeriesInstanceUID)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = int(new.InstanceNumber) if new.InstanceNumber is not None else 0
    path = place / f"{number}.dcm"
    if path.exists():
        path = place / f"{number}_{new.SOPInstanceUID}.dcm"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = new.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    new.file_meta = meta
    with path.open("xb") as file:
        dcmwrite(file, new, enforce_file_format=True)
