"""NIfTI, NRRD and MHA: research formats of one volume, read in the child process."""

from __future__ import annotations

import hashlib
import mmap
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..reasons import NotAnalysed
from ..types import Instance, Series, Study
from . import child
from .geometry import LPS_TO_RAS
from .headers import made_up_uid
from .pixels import AIR_HU, PADDING_HU

if TYPE_CHECKING:
    from ..settings import Settings

DESCRIBE = "triage.dicom.files:describe"
LOAD = "triage.dicom.files:load"

SUFFIXES = {".nii": "nifti", ".nii.gz": "nifti", ".nrrd": "nrrd", ".mha": "mha"}

_MAX_SHEAR_DEGREES = 0.5
_MAX_SIDE = 8192
_MAX_HEADER = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS  # with the header and checksum of gzip
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class FileSeries(Series):
    """The volume of one file: `shape` (X, Y, Z), affine (4, 4) as tuples, index -> RAS+ mm."""

    shape: tuple[int, int, int] = (0, 0, 0)
    affine: tuple[tuple[float, ...], ...] = ()


def kind_of(path: Path) -> str | None:
    """nifti, nrrd or mha by the file's name, else None."""
    name = path.name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def open_file(path: Path, kind: str, settings: Settings) -> Study:
    """The study that one file makes; its UIDs follow from the file's content.

    Raises NotAnalysed: UNREADABLE, TOO_LARGE, BAD_DIMENSIONS, NO_GEOMETRY, BAD_GEOMETRY, TILT,
    TOO_FEW_SLICES.
    """
    if path.stat().st_size > settings.max_bytes:
        raise NotAnalysed("TOO_LARGE", f"at most {settings.max_bytes} bytes")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    study = made_up_uid(f"study {digest}")
    try:
        found, _ = child.run(
            DESCRIBE,
            {"path": str(path), "kind": kind},
            timeout_s=settings.decode_timeout_s,
            memory_bytes=settings.decode_memory_bytes,
        )
        shape, affine = _checked(found, settings)
    except NotAnalysed as error:
        raise NotAnalysed(error.code, error.detail, study) from None
    series = FileSeries(
        study_instance_uid=study,
        series_instance_uid=made_up_uid(f"series {digest}"),
        instances=(Instance(path),),
        kind=kind,
        why_chosen="the only volume of the file",
        shape=shape,
        affine=tuple(tuple(map(float, row)) for row in affine),
    )
    return Study(study, (series,))


def _checked(
    found: dict[str, Any], settings: Settings
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    shape = [int(n) for n in found["shape"]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3 or not all(1 < n <= _MAX_SIDE for n in shape):
        raise NotAnalysed("BAD_DIMENSIONS", f"expected a 3D volume, got {shape}")
    x, y, z = shape
    if x * y * z * 2 > settings.max_bytes or max(shape) > max(settings.max_slices, 4096):
        raise NotAnalysed("TOO_LARGE", f"{x} x {y} x {z} voxels")
    if found["affine"] is None:
        raise NotAnalysed("NO_GEOMETRY", "the file has no orientation (sform and qform are 0)")
    affine = np.array(found["affine"], float)
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or not ((spacing > 0.05) & (spacing <= 20)).all():
        raise NotAnalysed("BAD_GEOMETRY", f"voxel size {np.round(spacing, 3).tolist()} mm")
    cosines = axes / spacing
    off = np.abs(cosines.T @ cosines - np.eye(3)).max()
    if off > np.sin(np.radians(_MAX_SHEAR_DEGREES)):
        raise NotAnalysed("TILT", "the axes of the volume are not at right angles")
    upward = int(np.abs(cosines[2]).argmax())
    if shape[upward] < settings.min_slices:
        text = f"{shape[upward]}, at least {settings.min_slices} are needed"
        raise NotAnalysed("TOO_FEW_SLICES", text)
    return (x, y, z), affine


# ---- in the child


def describe(request: dict[str, Any], _out: mmap.mmap | None) -> dict[str, Any]:
    """Task of the child: shape and affine (RAS+ mm; None if the file has none)."""
    path, kind = Path(request["path"]), request["kind"]
    try:
        return _describe_nifti(path) if kind == "nifti" else _describe_itk(path, kind)
    except (NotAnalysed, MemoryError):
        raise
    except Exception as error:  # whatever the readers raise on damage
        raise NotAnalysed("UNREADABLE", f"{type(error).__name__}") from None


def load(request: dict[str, Any], out: mmap.mmap) -> dict[str, Any]:
    """Task of the child: writes HU and padding into `out` as `pixels.decode_slices` does."""
    path, kind = Path(request["path"]), request["kind"]
    try:
        _check_packed(path, kind)
        voxels, slope, intercept = _nifti(path) if kind == "nifti" else _itk(path, kind)
    except (NotAnalysed, MemoryError):
        raise
    except EOFError:
        raise NotAnalysed("PIXELS_TRUNCATED") from None
    except Exception as error:  # whatever the readers raise on damage
        code = "PIXELS_TRUNCATED" if "xpected" in str(error) else "PIXELS_UNDECODABLE"
        raise NotAnalysed(code, f"{type(error).__name__}") from None
    x, y, z = request["shape"]
    if voxels.size != x * y * z:
        raise NotAnalysed("UNREADABLE", "the file has changed while it was read")
    voxels = voxels.reshape(x, y, z)
    plain = (slope, intercept) == (1.0, 0.0)

    def values(k: int) -> NDArray[Any]:
        return voxels[:, :, k].T if plain else voxels[:, :, k].T * slope + intercept

    exact = True
    for k in range(z):
        plane = values(k)
        if not np.isfinite(plane).all():
            raise NotAnalysed("PIXELS_INCONSISTENT", "values that are not finite")
        exact = exact and bool((plane == np.rint(plane)).all() and plane.max() <= 32767)
    return _write(values, (z, y, x), np.dtype(np.int16 if exact else np.float32), out)


def _check_packed(path: Path, kind: str) -> None:
    """Refuses packed voxels whose checksum is wrong (RFC 1952 2.3.1, RFC 1950 2.2).

    A reader that takes as many bytes as the volume has stops before the checksum: damage in the
    packed stream would come out as other voxels, and nobody would know.
    """
    with path.open("rb") as file:
        head = file.read(_MAX_HEADER)
        at, gzipped = _packed_at(head, kind)
        if at is None:
            return
        file.seek(at)
        unpacker = zlib.decompressobj(_GZIP if gzipped else zlib.MAX_WBITS)
        try:
            while block := unpacker.unconsumed_tail or unpacker.unused_data or file.read(1 << 18):
                if unpacker.eof:  # of one member; another may follow, or zeroes that fill a block
                    if not block.strip(b"\0"):
                        break
                    unpacker = zlib.decompressobj(_GZIP if gzipped else zlib.MAX_WBITS)
                unpacker.decompress(block, 1 << 20)
        except zlib.error:
            raise NotAnalysed("PIXELS_UNDECODABLE", "the packed voxels are damaged") from None
        if not unpacker.eof:
            raise NotAnalysed("PIXELS_TRUNCATED", "the packed voxels end too early")


def _packed_at(head: bytes, kind: str) -> tuple[int | None, bool]:
    """Where packed voxels begin (None: they are not packed), and whether by gzip, not zlib."""
    if kind == "nifti":
        return (0 if head.startswith(_GZIP_MAGIC) else None), True
    if kind == "nrrd":
        ends = (head.find(line) + len(line) for line in (b"\n\n", b"\r\n\r\n") if line in head)
        start = min(ends, default=0)  # of the voxels
        if not re.search(rb"^encoding: *(gz|gzip) *\r?$", head[:start], re.I | re.M):
            return None, True
        if not head[start:].startswith(_GZIP_MAGIC):  # lines or bytes to skip: nobody writes that
            raise NotAnalysed("UNREADABLE", "no packed voxels after the header")
        return start, True
    start = head.find(b"\n", head.find(b"ElementDataFile")) + 1
    said = re.search(rb"^CompressedData *= *[Tt1]", head[:start], re.M)
    return (start if said else None), False


def _write(
    values: Any, shape: tuple[int, int, int], dtype: np.dtype[Any], out: mmap.mmap
) -> dict[str, Any]:
    size = shape[0] * shape[1] * shape[2]
    hu = np.frombuffer(out, dtype, size).reshape(shape)
    padding = np.frombuffer(out, np.bool_, size, 4 * size).reshape(shape)
    padded = False
    for k in range(shape[0]):
        plane = values(k)
        outside = plane <= PADDING_HU
        padded = padded or bool(outside.any())
        padding[k] = outside
        hu[k] = np.where(outside, AIR_HU, plane)
    return {"dtype": dtype.name, "padding": padded, "blank": []}


def _describe_nifti(path: Path) -> dict[str, Any]:
    import nibabel

    image = nibabel.load(path)
    header = image.header
    if image.get_data_dtype().kind not in "iuf":
        raise NotAnalysed("BAD_DIMENSIONS", f"voxels of type {image.get_data_dtype()}")
    if "xyzt_units" in header and header.get_xyzt_units()[0] not in ("mm", "unknown"):
        raise NotAnalysed("BAD_GEOMETRY", f"lengths in {header.get_xyzt_units()[0]}")
    known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    return {"shape": list(image.shape), "affine": image.affine.tolist() if known else None}


def _nifti(path: Path) -> tuple[NDArray[Any], float, float]:
    import nibabel

    image = nibabel.load(path)
    slope, intercept = image.header.get_slope_inter()
    voxels = np.asanyarray(image.dataobj.get_unscaled())
    return voxels, 1.0 if slope is None else float(slope), float(intercept or 0.0)


def _itk_reader(path: Path, kind: str) -> Any:
    """A reader after the header was found to point at no other file."""
    import SimpleITK as sitk  # noqa: N813 - its customary name

    with path.open("rb") as file:
        head = file.read(_MAX_HEADER)
    if kind == "nrrd":
        text = head.partition(b"\n\n")[0].replace(b"\r", b"").lower()
        if not head.startswith(b"NRRD") or b"\ndata file:" in text or b"\ndatafile:" in text:
            raise NotAnalysed("UNREADABLE", "no NRRD file with its data attached")
    elif b"ElementDataFile = LOCAL" not in head or head.count(b"ElementDataFile") != 1:
        raise NotAnalysed("UNREADABLE", "no MHA file with its data attached")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if kind == "nrrd" else "MetaImageIO")
    reader.SetFileName(str(path))
    return reader


def _describe_itk(path: Path, kind: str) -> dict[str, Any]:
    reader = _itk_reader(path, kind)
    reader.ReadImageInformation()
    shape = list(reader.GetSize())
    if reader.GetNumberOfComponents() != 1:
        raise NotAnalysed("BAD_DIMENSIONS", f"{reader.GetNumberOfComponents()} values a voxel")
    if len(shape) != 3:
        return {"shape": shape, "affine": None}
    lps = np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(3, 3)
    lps[:3, :3] = direction * np.array(reader.GetSpacing())
    lps[:3, 3] = reader.GetOrigin()
    return {"shape": shape, "affine": (LPS_TO_RAS @ lps).tolist()}


def _itk(path: Path, kind: str) -> tuple[NDArray[Any], float, float]:
    import SimpleITK as sitk  # noqa: N813 - its customary name

    image = _itk_reader(path, kind).Execute()
    return sitk.GetArrayFromImage(image).T, 1.0, 0.0
