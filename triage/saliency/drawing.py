"""Pixels of the overlays: turning slices for display, colours, smooth lines, text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from triage.imaging.body import body_box
from triage.types import Volume

Pixels = NDArray[np.float32]
Colour = tuple[int, int, int]

FOR: Colour = (255, 60, 40)  # speaks for the target
AGAINST: Colour = (60, 130, 255)  # speaks against it


@dataclass(frozen=True, slots=True)
class Frame:
    """Which part of a slice is shown, and how large: the same for all slices of a volume."""

    rows: slice  # along Y
    columns: slice  # along X
    size: tuple[int, int]  # width, height in pixels

    @classmethod
    def around_body(cls, volume: Volume, room: tuple[int, int]) -> Frame:
        """The body with a small margin, as large as the room (pixels) allows, true aspect."""
        x, y, _ = body_box(volume.hu)
        size_x, size_y, _ = volume.spacing
        width, height = (x.stop - x.start) * size_x, (y.stop - y.start) * size_y  # mm
        scale = min(room[0] / width, room[1] / height)  # pixels per mm
        return cls(y, x, (max(1, round(width * scale)), max(1, round(height * scale))))

    def show(self, values: NDArray[Any], *, smooth: bool = False) -> Pixels:
        """A slice (X, Y) in RAS+ as displayed (rows, columns), radiological convention.

        The patient's right is on the left, anterior on top. `smooth` interpolates cubically (CT),
        else linearly (maps).
        """
        part = values[self.columns, self.rows]
        turned = np.ascontiguousarray(part[::-1, ::-1].T, dtype=np.float32)  # (rows, columns)
        how = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(turned).resize(self.size, how), dtype=np.float32)


def grey(values: Pixels) -> Pixels:
    """Values in [0, 1] (rows, columns) as RGB in [0, 255] (rows, columns, 3)."""
    return np.repeat(values[..., None] * np.float32(255), 3, axis=2)


def blend(picture: Pixels, colour: Colour, alpha: Pixels) -> Pixels:
    """Mix a colour into RGB (rows, columns, 3) by opacity (rows, columns) in [0, 1]."""
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if len(rows) == 0:
        return picture
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    opacity = alpha[part][..., None]
    mixed = picture.copy()
    mixed[part] += (np.asarray(colour, dtype=np.float32) - mixed[part]) * opacity
    return mixed


def line_at(field: Pixels, level: float, width: float) -> Pixels:
    """Opacity of the line where `field` (rows, columns) crosses `level`, `width` pixels wide.

    The distance to the line is |field - level| / |gradient| to first order, which gives smooth
    edges at no cost.
    """
    down, across = np.gradient(field)
    steepness = np.maximum(np.hypot(down, across), 1e-6)
    distance = np.abs(field - level) / steepness
    opacity: Pixels = np.clip(width / 2 + 0.5 - distance, 0, 1).astype(np.float32)
    return opacity


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that pictures look alike on every machine."""
    return ImageFont.load_default(size)


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: Colour,
    *,
    anchor: str = "la",
    width: float | None = None,
) -> float:
    """Write one line with a dark rim, cut to `width` pixels; returns where it ends (x)."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if width is not None and draw.textlength(text, font(size)) > width:
        while text and draw.textlength(text + "...", font(size)) > width:
            text = text[:-1]
        text += "..."
    rim: Colour = (0, 0, 0)
    draw.text(at, text, colour, font(size), anchor=anchor, stroke_width=2, stroke_fill=rim)
    return at[0] + draw.textlength(text, font(size))
