"""decode(): the voxels of a series that passed the gate, read by a child process."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..reasons import NotAnalysed
from ..types import Series, Stack
from . import child, files
from .headers import Slice
from .series import GatedSeries

if TYPE_CHECKING:
    from ..settings import Settings

TASK = "triage.dicom.pixels:decode_slices"

# Largest cross-section of an adult trunk: 300 cm2 if very thin; an adult head has 200 to 260 cm2.
_MIN_TRUNK_CM2 = 200.0

_MAX_STEP_HU = 25.0  # of the median voxel, between slices whose rescale values differ

_SAMPLES = 2_000_000  # voxels that the statistics look at, about


def decode(series: Series, settings: Settings) -> Stack:
    """Voxels of `series` (from `open_study`, still open) in HU with affine and padding.

    `hu` is int16 where every rescaled value is an integer that fits, else float32; padding voxels
    are -1024 HU. Slices are sorted along the normal; `instances[k]` is slice k. Raises NotAnalysed:
    PIXELS_TRUNCATED, PIXELS_UNDECODABLE, PIXELS_INCONSISTENT, BAD_RESCALE, NOT_ABDOMEN (no body in
    view), UNREADABLE (a file changed), TOO_LARGE, TIMED_OUT, WORKER_FAILED.
    """
    try:
        if isinstance(series, GatedSeries):
            stack = _decode_dicom(series, settings)
        elif isinstance(series, files.FileSeries):
            stack = _decode_file(series, settings)
        else:
            raise TypeError(f"Expected a series from open_study(), got {type(series).__name__}")
    except NotAnalysed as error:
        error.study_instance_uid = error.study_instance_uid or series.study_instance_uid
        raise
    return stack


def decode_slices(slices: Sequence[Slice], settings: Settings) -> tuple[dict[str, Any], mmap.mmap]:
    """Runs the child on slices of equal size; its answer and the memory it filled."""
    size = len(slices) * (slices[0].rows or 0) * (slices[0].columns or 0)
    request = {
        "planes": [_plane(s) for s in slices],
        "threads": settings.threads or min(8, _cores()),
        "max_bytes": settings.max_bytes,
    }
    answer, memory = child.run(
        TASK,
        request,
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decode_memory_bytes,
        out_bytes=5 * size,
    )
    assert memory is not None  # noqa: S101 - for the type checker: out_bytes > 0
    return answer, memory


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _plane(item: Slice) -> dict[str, Any]:
    """What the child needs to know of one slice."""
    return {
        "path": item.path,
        "file_bytes": item.file_bytes,
        "modified_ns": item.modified_ns,
        "syntax": item.syntax,
        "offset": item.pixel_offset,
        "length": item.pixel_length,
        "frame": item.frame,
        "frames": item.frames,
        "rows": item.rows,
        "columns": item.columns,
        "bits_stored": item.bits_stored,
        "signed": item.signed,
        "padding": item.padding,
        "padding_limit": item.padding_limit,
        "slope": (item.slope or (1.0,))[0],
        "intercept": (item.intercept or (0.0,))[0],
    }


def _decode_dicom(series: GatedSeries, settings: Settings) -> Stack:
    slices = series.slices
    answer, memory = decode_slices(slices, settings)
    shape = (len(slices), slices[0].rows or 0, slices[0].columns or 0)
    hu, padding = _arrays(memory, shape, answer)
    affine = np.array(series.affine)
    check_hu(hu)
    check_rescale(hu, slices)
    check_size(hu, affine)
    _check_blank(answer["blank"], len(slices))
    return Stack(
        hu=hu,
        affine=affine,
        instances=series.instances,
        series=series,
        padding=padding,
        notes=series.notes,
    )


def _decode_file(series: files.FileSeries, settings: Settings) -> Stack:
    x, y, z = series.shape
    answer, memory = child.run(
        files.LOAD,
        {"path": str(series.instances[0].path), "kind": series.kind, "shape": [x, y, z]},
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decode_memory_bytes,
        out_bytes=5 * x * y * z,
    )
    assert memory is not None  # noqa: S101 - for the type checker: out_bytes > 0
    hu, padding = _arrays(memory, (z, y, x), answer)
    affine = np.array(series.affine)
    check_hu(hu)
    check_size(hu, affine)
    return Stack(
        hu=hu,
        affine=affine,
        instances=(),
        series=series,
        padding=padding,
    )


def _arrays(
    memory: mmap.mmap, shape: tuple[int, int, int], answer: dict[str, Any]
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """HU and padding (X, Y, Z) as views on the child's memory, which holds (slice, row, column)."""
    size = shape[0] * shape[1] * shape[2]
    dtype = np.float32 if answer["dtype"] == "float32" else np.int16
    hu = np.frombuffer(memory, dtype, size).reshape(shape).T
    if not answer["padding"]:
        return hu, None
    return hu, np.frombuffer(memory, np.bool_, size, 4 * size).reshape(shape).T


def check_hu(hu: NDArray[Any]) -> None:
    """Whether the values (X, Y, Z) can be the HU of a body surrounded by air.

    Raises NotAnalysed: NOT_ABDOMEN (air alone), BAD_RESCALE (no air, or half of it is metal).
    """
    step = max(1, int(np.ceil((hu.size / _SAMPLES) ** (1 / 3))))
    sample = hu[::step, ::step, ::step]
    air = float(np.mean(sample < -500))
    tissue = float(np.mean((sample > -200) & (sample < 300)))
    dense = float(np.mean(sample > 600))
    if air > 0.99 and tissue < 0.01:
        raise NotAnalysed("NOT_ABDOMEN", "nothing but air in the images")
    if air < 1e-4 or tissue < 0.01 or dense > 0.3:
        text = f"{air:.0%} air, {tissue:.0%} soft tissue, {dense:.0%} above 600 HU"
        raise NotAnalysed("BAD_RESCALE", f"the values are not HU of a body: {text}")


def check_rescale(hu: NDArray[Any], slices: Sequence[Slice]) -> None:
    """Whether slices with other rescale values than their neighbour are on the same scale.

    One wrong digit in the intercept of one slice makes fat of blood, and nothing else shows it:
    between neighbours, half of all voxels stay as they are. Raises NotAnalysed: BAD_RESCALE.
    """
    for k in range(1, len(slices)):
        one, two = slices[k - 1], slices[k]
        if (one.slope, one.intercept) == (two.slope, two.intercept):
            continue
        step = float(np.median(hu[::4, ::4, k].astype(np.float32) - hu[::4, ::4, k - 1]))
        if abs(step) > _MAX_STEP_HU:
            text = f"slices {k} and {k + 1} have other rescale values and lie {step:.0f} HU apart"
            raise NotAnalysed("BAD_RESCALE", text)


def check_size(hu: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Refuses a body too thin for an adult trunk, unless the field of view cuts it off.

    Raises NotAnalysed: NOT_ABDOMEN.
    """
    up = int(np.abs(affine[2, :3]).argmax())
    across = [axis for axis in range(3) if axis != up]
    pixel_cm2 = float(np.prod(np.linalg.norm(affine[:3, across], axis=0))) / 100
    planes = np.moveaxis(hu, up, 2)  # (across, across, up)
    sample = planes[::4, ::4, :: max(1, planes.shape[2] // 64)]
    field = planes.shape[0] * planes.shape[1] * pixel_cm2
    largest = float((sample > -300).mean(axis=(0, 1)).max()) * field
    if largest < min(_MIN_TRUNK_CM2, 0.5 * field):
        raise NotAnalysed("NOT_ABDOMEN", f"largest cross-section {largest:.0f} cm2")


def _check_blank(blank: Sequence[int], count: int) -> None:
    """Refuses a slice of one single value between others; at the ends it may be padding."""
    inside = set(blank)
    for ends in (range(count), reversed(range(count))):
        for k in ends:
            if k not in inside:
                break
            inside.remove(k)
    if inside:
        text = f"slice {min(inside) + 1} of {count} holds one single value"
        raise NotAnalysed("PIXELS_INCONSISTENT", text)
