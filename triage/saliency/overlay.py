"""Pictures for the radiologist: one axial slice with what the networks looked at.

Radiological convention (patient's right on the image's left, anterior on top), true pixel aspect,
the target's own fixed window. Red speaks for the target, blue against it; opacity follows the
magnitude, and the hottest area is only outlined, so that the finding itself stays visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from triage.imaging.window import window
from triage.imaging.windows import TARGET_WINDOW, WINDOWS
from triage.reasons import REASONS
from triage.saliency.drawing import (
    AGAINST,
    FOR,
    Colour,
    Frame,
    Pixels,
    blend,
    grey,
    line_at,
    write,
)
from triage.types import DISCLAIMER, BundleRef, Finding, Target, Verdict, Volume

SIZE = (900, 900)  # pixels
HEADER, FOOTER, BAR = 92, 108, 72  # height, height, width in pixels
ROOM = (SIZE[0] - BAR, SIZE[1] - HEADER - FOOTER)  # for the slice

FAINT = 0.10  # part of the scale below which nothing is drawn
HOT = 0.60  # part of the scale above which only the contour is drawn
OPACITY = 0.50  # just below HOT
INSIDE = 0.06  # above HOT: the finding must stay visible
PERCENTILE = 99.5  # of |saliency| over the study: full scale

WHITE: Colour = (240, 242, 245)
DIM: Colour = (165, 172, 184)
AMBER: Colour = (255, 196, 64)
BACKGROUND: Colour = (18, 20, 25)
OUTLINE: Colour = (120, 220, 170)

VERDICTS: dict[Verdict, tuple[str, Colour]] = {
    Verdict.SUSPECTED: ("suspected", (255, 96, 80)),
    Verdict.NOT_EXCLUDED: ("not excluded", WHITE),
    Verdict.NO_FINDING: ("no finding", DIM),
    Verdict.UNCERTIFIED: ("uncertified: rules nothing out", WHITE),
    Verdict.NOT_ASSESSED: ("not assessed", AMBER),
}


def draw_overlay(
    volume: Volume,
    finding: Finding,
    saliency: MetaTensor | None,
    index: int | None,
    path: Path,
    *,
    bundle: BundleRef,
    score_name: str,
    organ_mask: MetaTensor | None = None,
    scale: float | None = None,
    frame: Frame | None = None,
    note: str = "",
) -> Path:
    """Draw one slice with its saliency as PNG, and return the path.

    A target that is not assessed gets the plain slice with the reason written across it.

    Parameters
    ----------
    volume : voxels (1, X, Y, Z) in HU, RAS+.
    saliency : (1, X, Y, Z) on the volume's voxels; positive speaks for, negative against. None
        only if the target is not assessed.
    index : slice, counted from the feet; None is the middle one.
    bundle : the networks that answered; name and version are burnt in.
    score_name : "probability", or "score" while calibrated on simulated patients.
    organ_mask : (1, X, Y, Z) on the volume's voxels, not zero inside the target's organs.
    scale : magnitude of full colour; None is `saliency_scale(saliency)`. Pass it when several
        slices are drawn.
    frame : part of the slices that is shown; None is `Frame.around_body(volume, ROOM)`.
    note : a few words, burnt in beside the bundle.

    Raises
    ------
    ValueError
        If map or mask do not lie on the volume's voxels, the map is not finite, or is missing.
    IndexError
        If there is no such slice.
    """
    index = _slice_index(volume, index)
    sheet = _Sheet(volume, finding.target, index, frame)
    if finding.verdict is Verdict.NOT_ASSESSED:
        picture = sheet.ct() * np.float32(0.55)
        canvas, draw = sheet.compose(picture)
        _write_reason(draw, finding)
    else:
        if saliency is None:
            raise ValueError(f"Expected a saliency map for the assessed target {finding.target}")
        field = _saliency_slice(volume, saliency, index)
        full = saliency_scale(saliency) if scale is None else scale
        picture = sheet.ct()
        if organ_mask is not None:
            mask = _slice_of(volume, organ_mask, index, "organ mask") != 0
            rounded = gaussian_filter(mask.astype(np.float32), 1.0)  # takes the voxel steps off
            picture = _outline(picture, sheet.frame.show(rounded))
        shown = sheet.frame.show(field / np.float32(full)) if full > 0 else None
        if shown is not None:
            picture = _paint(picture, shown)
        canvas, draw = sheet.compose(picture)
        _colour_bar(canvas, draw)
        if shown is None or float(np.abs(shown).max()) < FAINT:
            _corner_note(draw, "no attribution in this slice")
    _header(draw, finding, score_name)
    made_by = (
        f"bundle {bundle.name} {bundle.version}    calibrated on {bundle.calibrated_on} patients"
    )
    _footer(draw, sheet.position(), f"{made_by}    {note}" if note else made_by)
    return _save(canvas, path)


def draw_plain(
    volume: Volume, target: Target, index: int | None, path: Path, *, frame: Frame | None = None
) -> Path:
    """Draw the unmarked twin of an overlay: same slice, frame and window, nothing painted on it.

    Raises IndexError if there is no such slice (None is the middle one).
    """
    sheet = _Sheet(volume, target, _slice_index(volume, index), frame)
    canvas, draw = sheet.compose(sheet.ct())
    write(draw, (20, 14), target.value.upper(), 32, WHITE)
    write(draw, (20, 56), "unmarked image", 20, DIM)
    _footer(draw, sheet.position(), "")
    return _save(canvas, path)


def contact_sheet(pictures: Sequence[Path], *paths: Path, width: int = 600) -> None:
    """Put pictures side by side on one page, PNG or PDF by the name of each of `paths`.

    `width` of one picture in pixels. Raises ValueError if there are no pictures.
    """
    if not pictures:
        raise ValueError("Expected at least one picture")
    columns = ceil(sqrt(len(pictures)))
    rows = ceil(len(pictures) / columns)
    height = round(width * SIZE[1] / SIZE[0])
    strip = 40
    sheet = Image.new("RGB", (columns * width, rows * height + strip), BACKGROUND)
    for i, source in enumerate(pictures):
        with Image.open(source) as picture:
            small = picture.convert("RGB")
            small.thumbnail((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
        sheet.paste(small, (i % columns * width, i // columns * height))
    draw = ImageDraw.Draw(sheet)
    write(draw, (16, rows * height + strip / 2), DISCLAIMER, 20, AMBER, anchor="lm")
    for path in paths:
        _save(sheet, path)


def saliency_scale(saliency: MetaTensor) -> float:
    """Magnitude of full colour: a high percentile of what is not zero; 0 for an empty map.

    At least half of the largest: a small injury in a large map is not clipped to a flat spot.
    """
    values = saliency.as_tensor()
    largest = max(abs(float(v)) for v in values.aminmax())
    step = max(1, int((values.numel() / 2e6) ** (1 / 3)))  # about two million voxels are enough
    for every in (step, 1):  # a small hot spot can fall between the sampled voxels
        sample = values[:, ::every, ::every, ::every].abs().flatten()
        sample = sample[sample != 0]
        if sample.numel() > 0:
            return max(float(np.percentile(sample.cpu().numpy(), PERCENTILE)), largest / 2)
    return 0.0


class _Sheet:
    """One slice of a volume on the canvas."""

    def __init__(self, volume: Volume, target: Target, index: int, frame: Frame | None) -> None:
        self.volume = volume
        self.index = index
        self.window = WINDOWS[TARGET_WINDOW[target]]
        self.frame = frame or Frame.around_body(volume, ROOM)

    def ct(self) -> Pixels:
        """The slice in its window, RGB in [0, 255] (rows, columns, 3)."""
        hu = self.volume.hu.as_tensor()[0, :, :, self.index].cpu().numpy()
        shown = torch.from_numpy(self.frame.show(hu, smooth=True).copy())
        return grey(np.asarray(window(shown, self.window.low, self.window.high)))

    def compose(self, picture: Pixels) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """Canvas with the slice in the middle of its room and the orientation letters around."""
        canvas = Image.new("RGB", SIZE, BACKGROUND)
        canvas.paste((0, 0, 0), (0, HEADER, SIZE[0], SIZE[1] - FOOTER))
        left = (ROOM[0] - picture.shape[1]) // 2
        top = HEADER + (ROOM[1] - picture.shape[0]) // 2
        canvas.paste(Image.fromarray(picture.clip(0, 255).astype(np.uint8)), (left, top))
        draw = ImageDraw.Draw(canvas)
        middle_x, middle_y = ROOM[0] / 2, HEADER + ROOM[1] / 2
        for letter, at, anchor in (
            ("R", (10, middle_y), "lm"),
            ("L", (ROOM[0] - 10, middle_y), "rm"),
            ("A", (middle_x, HEADER + 8), "ma"),
            ("P", (middle_x, HEADER + ROOM[1] - 8), "md"),
        ):
            write(draw, at, letter, 28, WHITE, anchor=anchor)
        return canvas, draw

    def position(self) -> str:
        """Where the slice lies and how it is windowed."""
        hu = self.volume.hu
        centre = torch.tensor([(n - 1) / 2 for n in hu.shape[1:3]] + [self.index, 1.0])
        z = float(hu.affine[2].double().cpu() @ centre.double())  # RAS+ mm
        text = f"z {z:+.1f} mm    slice {self.index + 1} of {hu.shape[3]} from the feet"
        if self.volume.instances:
            number = self.volume.instances[self.index].instance_number
            text += f" (instance {number})" if number is not None else ""
        return text + f"    W {self.window.width:g} L {self.window.level:g} HU"


def _slice_index(volume: Volume, index: int | None) -> int:
    depth = int(volume.hu.shape[3])
    index = depth // 2 if index is None else index
    if not 0 <= index < depth:
        raise IndexError(f"Expected a slice from 0 to {depth - 1}, got {index}")
    return index


def _slice_of(volume: Volume, image: MetaTensor, index: int, name: str) -> NDArray[Any]:
    """One slice (X, Y), after checking that the image lies on the volume's voxels."""
    if image.shape != volume.hu.shape:
        raise ValueError(
            f"Expected the {name} on voxels {tuple(volume.hu.shape)}, got {tuple(image.shape)}"
        )
    # A wrong affine would put the mark on the wrong side without a word.
    if not torch.allclose(image.affine.double(), volume.hu.affine.double(), atol=1e-2):
        raise ValueError(f"Expected the {name} to have the volume's affine")
    return np.asarray(image.as_tensor()[0, :, :, index].cpu().numpy())


def _saliency_slice(volume: Volume, saliency: MetaTensor, index: int) -> Pixels:
    field = _slice_of(volume, saliency, index, "saliency").astype(np.float32)
    if not np.isfinite(field).all():
        raise ValueError("Expected finite saliency")
    return field


def _paint(picture: Pixels, field: Pixels) -> Pixels:
    """Colour by sign and magnitude (`field` in parts of the scale), contour around the hottest."""
    for colour, signed in ((FOR, field), (AGAINST, -field)):
        part = np.clip(signed, 0, None)
        picture = blend(picture, colour, _opacity(part))
        picture = blend(picture, colour, line_at(part, HOT, 2.5))
    return picture


def _opacity(part: Pixels) -> Pixels:
    rising = OPACITY * np.clip((part - FAINT) / (HOT - FAINT), 0, 1)
    return np.where(part < HOT, rising, np.float32(INSIDE)).astype(np.float32)


def _outline(picture: Pixels, mask: Pixels) -> Pixels:
    return blend(picture, OUTLINE, line_at(mask, 0.5, 1.6) * np.float32(0.8))


def _colour_bar(canvas: Image.Image, draw: ImageDraw.ImageDraw) -> None:
    """The same colours on mid grey, from against (bottom) to for (top)."""
    height, width = 300, 22
    left, top = SIZE[0] - BAR + 23, HEADER + (ROOM[1] - height) // 2
    field = np.repeat(np.linspace(1, -1, height, dtype=np.float32)[:, None], width, axis=1)
    bar = _paint(np.full((height, width, 3), 120, dtype=np.float32), field)
    canvas.paste(Image.fromarray(bar.clip(0, 255).astype(np.uint8)), (left, top))
    middle = left + width / 2
    for text, y, colour in (
        ("for", top - 12, FOR),
        ("against", top + height + 22, AGAINST),
    ):
        write(draw, (middle, y), text, 17, colour, anchor="ms")
    write(draw, (left + width + 5, top + height / 2), "0", 16, DIM, anchor="lm")
    for i, text in enumerate(("line:", "hottest", "area")):
        write(draw, (middle, top + height + 56 + 17 * i), text, 14, DIM, anchor="ms")


def _header(draw: ImageDraw.ImageDraw, finding: Finding, score_name: str) -> None:
    end = write(draw, (20, 14), finding.target.value.upper(), 32, WHITE)
    text, colour = VERDICTS[finding.verdict]
    if finding.reason:
        text += f": {finding.reason}"
    write(draw, (end + 22, 14), text, 32, colour, width=SIZE[0] - end - 40)
    facts = []
    if finding.probability is not None:
        facts.append(f"{score_name} {_number(finding.probability)}")
    if finding.rule_in is not None:
        facts.append(f"rule-in {_number(finding.rule_in.cutoff)}")
    if finding.rule_out is not None:
        facts.append(f"rule-out {_number(finding.rule_out.cutoff)}")
    facts += [f"side {finding.side}"] if finding.side else []
    facts += [f"grade {finding.grade}"] if finding.grade else []
    write(draw, (20, 56), "    ".join(facts), 20, DIM, width=SIZE[0] - 40)


def _footer(draw: ImageDraw.ImageDraw, position: str, made_by: str) -> None:
    top = SIZE[1] - FOOTER
    write(draw, (20, top + 10), position, 18, WHITE, width=SIZE[0] - 40)
    write(draw, (20, top + 40), made_by, 18, DIM, width=SIZE[0] - 40)
    write(draw, (20, top + 70), DISCLAIMER, 24, AMBER, width=SIZE[0] - 40)


def _write_reason(draw: ImageDraw.ImageDraw, finding: Finding) -> None:
    code = finding.reason or ""
    lines = wrap(REASONS[code].message, 60) if code in REASONS else []
    x, y = ROOM[0] / 2, HEADER + ROOM[1] / 2 - 20 * len(lines)
    write(draw, (x, y), f"not assessed: {code}", 34, AMBER, anchor="mm", width=ROOM[0] - 80)
    for i, line in enumerate(lines, start=1):
        write(draw, (x, y + 12 + 28 * i), line, 22, WHITE, anchor="mm")


def _corner_note(draw: ImageDraw.ImageDraw, text: str) -> None:
    write(draw, (14, HEADER + ROOM[1] - 12), text, 18, DIM, anchor="ld")


def _number(value: float) -> str:
    """Two digits, three where two would say 0 or 1."""
    return f"{value:.2f}" if 0.01 <= value <= 0.99 else f"{value:.3f}"


def _save(canvas: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".pdf":
        canvas.save(path, resolution=150)
    else:
        canvas.save(path, compress_level=1)  # encoding cost more than drawing
    return path
