"""The gate on headers: one table of checks, from the most particular fault to the most general.

Each check takes the slices of one series and returns what is wrong with them, or None. The first
fault that is found names the reason code, so the order of the table is part of its meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..reasons import NotAnalysed
from . import geometry
from .dataset import UNDEFINED
from .headers import Slice
from .syntax import CLASSIC_CT, SYNTAXES

Check = Callable[[Sequence[Slice]], str | None]

ADULT_YEARS = 18
MAX_SIDE = 4096  # rows or columns; scanners make 512 to 2048
MAX_PIXEL_MM = 20.0
_UID = re.compile(r"\d+(\.\d+)+")  # PS3.5 section 9.1; leading zeros are met and harmless
_HU_TYPES = {"", "HU", "US"}  # PS3.3 C.11.1.1.2; US is "unspecified"


class Limits(NamedTuple):
    """What `settings` allow."""

    min_slices: int
    max_slices: int
    max_bytes: int


def _uids(slices: Sequence[Slice]) -> str | None:
    for item in slices:
        for name, uid in (
            ("StudyInstanceUID", item.study),
            ("SeriesInstanceUID", item.series),
            ("SOPInstanceUID", item.sop_instance),
        ):
            if len(uid) > 64 or not _UID.fullmatch(uid):
                return f"{name} {uid[:70]!r}" if uid else f"{name} is empty"
    return None


def _syntax(slices: Sequence[Slice]) -> str | None:
    return next((s.syntax[:64] or "none" for s in slices if s.syntax not in SYNTAXES), None)


def _dimensions(slices: Sequence[Slice]) -> str | None:
    first = slices[0]
    for item in slices:
        size = (item.rows, item.columns)
        if not all(side and 0 < side <= MAX_SIDE for side in size):
            return f"{item.rows} x {item.columns} pixels"
        if item.samples != 1:
            return f"{item.samples} samples a pixel"
        if item.frames < 1 or (item.sop_class == CLASSIC_CT and item.frames != 1):
            return f"{item.frames} frames"
        if size != (first.rows, first.columns):
            return f"{first.rows} x {first.columns} and {item.rows} x {item.columns} pixels"
    return None


def _bits(slices: Sequence[Slice]) -> str | None:
    for item in slices:
        stored = item.bits_stored or 0
        if item.bits_allocated != 16 or not 8 <= stored <= 16:
            return f"{item.bits_stored} bits stored in {item.bits_allocated}"
        if item.high_bit != stored - 1 or item.signed not in (0, 1):
            return f"high bit {item.high_bit} of {stored}, pixel representation {item.signed}"
        if item.photometric not in ("MONOCHROME1", "MONOCHROME2"):
            return f"photometric interpretation {item.photometric[:16]!r}"
    return None


def _pixels_there(slices: Sequence[Slice]) -> str | None:
    for item in slices:
        if item.pixel_offset is None or item.pixel_length is None:
            return "no pixel data"
        if item.pixel_length == UNDEFINED:
            continue
        there = min(item.pixel_length, item.body_length - item.pixel_offset)
        wanted = item.pixel_length
        if SYNTAXES[item.syntax].codec is None:
            frame = (item.rows or 0) * (item.columns or 0) * (item.bits_allocated or 0) // 8
            wanted = max(wanted, frame * item.frames)
        if there < wanted:
            return f"{there} of {wanted} bytes, instance number {item.instance_number}"
    return None


def _rescale(slices: Sequence[Slice]) -> str | None:
    for item in slices:
        if not item.slope or not item.intercept:
            return f"missing, instance number {item.instance_number}"
        if len(item.slope) != 1 or len(item.intercept) != 1:
            return "more than one value"
        slope, intercept = item.slope[0], item.intercept[0]
        if not (0 < slope <= 100 and abs(intercept) <= 65536):  # false for NaN
            return f"slope {slope:g}, intercept {intercept:g}"
        if item.rescale_type.upper() not in _HU_TYPES:
            return f"values are {item.rescale_type[:16]!r}, not HU"
    return None


def _no_geometry(slices: Sequence[Slice]) -> str | None:
    for item in slices:
        for name, value in (
            ("ImagePositionPatient", item.position),
            ("ImageOrientationPatient", item.orientation),
            ("PixelSpacing", item.spacing),
        ):
            if not value:
                return f"{name}, instance number {item.instance_number}"
    return None


def _bad_geometry(slices: Sequence[Slice]) -> str | None:
    for item in slices:
        position, orientation = item.position or (), item.orientation or ()
        spacing = item.spacing or ()
        if len(position) != 3 or not all(abs(v) < 1e5 for v in position):  # false for NaN
            return f"ImagePositionPatient {list(position[:4])}"
        if len(orientation) != 6 or not all(map(math.isfinite, orientation)):
            return f"ImageOrientationPatient {list(orientation[:7])}"
        if not geometry.is_orthonormal(orientation):
            return f"ImageOrientationPatient {list(orientation)} is not orthonormal"
        if len(spacing) != 2 or not all(0.01 < v <= MAX_PIXEL_MM for v in spacing):
            return f"PixelSpacing {list(spacing[:3])}"
    return None


def _patients(slices: Sequence[Slice]) -> str | None:
    count = len({s.patient for s in slices})
    return f"{count} patients" if count > 1 else None


def _age(slices: Sequence[Slice]) -> str | None:
    ages = [s.age_years for s in slices if s.age_years is not None]
    return f"patient of {min(ages):.0f} years" if ages and min(ages) < ADULT_YEARS else None


def _orientations(slices: Sequence[Slice]) -> str | None:
    cosines = np.array([s.orientation for s in slices], float)  # (n, 6)
    differs = np.abs(cosines - cosines[0]).max(axis=1) > 2e-3
    return f"{differs.sum()} of {len(slices)} images differ" if differs.any() else None


def _axial(slices: Sequence[Slice]) -> str | None:
    axial = geometry.is_axial(slices[0].orientation or ())
    return None if axial else "the images are coronal or sagittal"


def _spacings(slices: Sequence[Slice]) -> str | None:
    spacing = np.array([s.spacing for s in slices], float)  # (n, 2)
    if not np.allclose(spacing, spacing[0], rtol=1e-3, atol=0):
        return f"PixelSpacing from {spacing.min():g} to {spacing.max():g} mm"
    return None


def _thicknesses(slices: Sequence[Slice]) -> str | None:
    thick = [s.thickness[0] for s in slices if s.thickness and math.isfinite(s.thickness[0])]
    if thick and max(thick) - min(thick) > 0.1 * max(thick):
        return f"SliceThickness from {min(thick):g} to {max(thick):g} mm"
    return None


def _frames_of_reference(slices: Sequence[Slice]) -> str | None:
    count = len({s.frame_of_reference for s in slices})
    return f"{count} frames of reference" if count > 1 else None


# Faults of single slices and of mixtures. Code, check; the order says which fault is named first.
SLICE_CHECKS: tuple[tuple[str, Check], ...] = (
    ("BAD_UID", _uids),
    ("UNSUPPORTED_SYNTAX", _syntax),
    ("BAD_DIMENSIONS", _dimensions),
    ("PIXELS_INCONSISTENT", _bits),
    ("PIXELS_TRUNCATED", _pixels_there),
    ("BAD_RESCALE", _rescale),
    ("NO_GEOMETRY", _no_geometry),
    ("BAD_GEOMETRY", _bad_geometry),
    ("MIXED_PATIENT", _patients),
    ("MIXED_ORIENTATION", _orientations),
    ("NOT_CT", _axial),
    ("MIXED_SPACING", _spacings),
    ("MIXED_ACQUISITIONS", _frames_of_reference),
)


# What is wrong with a stack that is sound by itself: asked last, any other fault says more.
STACK_CHECKS: tuple[tuple[str, Check], ...] = (
    ("MIXED_SPACING", _thicknesses),
    ("OUT_OF_SCOPE", _age),
)


def check_slices(slices: Sequence[Slice], limits: Limits) -> None:
    """Runs the table on one series, in any order. Raises NotAnalysed with the first fault."""
    if len(slices) > limits.max_slices:
        raise NotAnalysed("TOO_LARGE", f"{len(slices)} slices, at most {limits.max_slices}")
    for code, check in SLICE_CHECKS:
        fault = check(slices)
        if fault is not None:
            raise NotAnalysed(code, fault)
    size = len(slices) * (slices[0].rows or 0) * (slices[0].columns or 0) * 2
    if size > limits.max_bytes:
        raise NotAnalysed("TOO_LARGE", f"{size} bytes of voxels, at most {limits.max_bytes}")


def check_stack(slices: Sequence[Slice], limits: Limits) -> list[Slice]:
    """The slices in order, if they make a regular stack of an adult. Raises NotAnalysed."""
    ordered = geometry.in_order(slices)
    geometry.check_steps(ordered)
    if len(ordered) < limits.min_slices:
        text = f"{len(ordered)}, at least {limits.min_slices} are needed"
        raise NotAnalysed("TOO_FEW_SLICES", text)
    for code, check in STACK_CHECKS:
        fault = check(ordered)
        if fault is not None:
            raise NotAnalysed(code, fault)
    return ordered
