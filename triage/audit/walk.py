"""What lies in a folder: series of DICOM, volumes in one file, series of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PICTURES = (".png", ".jpg", ".jpeg")
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha")
MASKS = ("segmentations", "lesions")  # folders of label maps in the RSNA layout
MASK_WORDS = ("_seg", "_labels", "_organs", "_liver", "_mask", "saliency")


@dataclass(frozen=True)
class Item:
    """One thing to look at. `patient`, `series`: from the layout or the path, not from a header."""

    kind: str  # dicom, volume, pictures
    path: Path
    patient: str
    series: str
    files: tuple[Path, ...] = ()

    @property
    def key(self) -> str:
        """Tells a changed item from one that was looked at: path, files, sizes, times."""
        parts = [f"{f.name}:{(s := f.stat()).st_size}:{s.st_mtime_ns}" for f in self.files]
        return f"{self.kind}|{self.path}|" + "|".join([parts[0], parts[-1], str(len(parts))])


def items(root: Path) -> Iterator[Item]:
    """Everything below `root`, in a stable order. Links are not followed."""
    for where, folders, names in os.walk(root):
        folders.sort()
        here = Path(where)
        if here.name in MASKS:
            folders.clear()
            continue
        files = [here / n for n in sorted(names) if not n.startswith(".")]
        files = [f for f in files if f.is_file() and not f.is_symlink()]
        pictures = [f for f in files if f.suffix.lower() in PICTURES]
        volumes = [f for f in files if f.name.lower().endswith(VOLUMES)]
        dicom = [f for f in files if f not in volumes and _is_dicom(f)]
        patient, series = _names(root, here)
        for volume in volumes:
            stem = volume.name.split(".")[0]
            if not any(word in stem for word in MASK_WORDS):
                yield Item("volume", volume, here.name if here != root else stem, stem, (volume,))
        if dicom:
            yield Item("dicom", here, patient or series, series, tuple(dicom))
        if pictures and patient:  # pictures at the top are no series
            yield Item("pictures", here, patient, series, tuple(sorted(pictures, key=_order)))


def _names(root: Path, here: Path) -> tuple[str, str]:
    """Patient and series by the path: .../train_images/<patient>/<series>, else the last two."""
    parts = here.relative_to(root).parts
    if "train_images" in parts:
        parts = parts[parts.index("train_images") + 1 :]
    if len(parts) < 2:
        return ("", parts[0]) if parts else ("", root.name)
    return parts[0], parts[-1]


def _order(path: Path) -> tuple[int, str]:
    return (int(path.stem), "") if path.stem.isdecimal() else (1 << 60, path.stem)


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() == ".dcm":
        return True
    if path.suffix:
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
