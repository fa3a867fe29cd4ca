"""Left is left in picture, map and surface, however the scanner stored the patient."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from triage.imaging.resample import to_grid
from triage.imaging.volume import straightened, to_volume
from triage.inference.localise import describe
from triage.saliency.drawing import Frame
from triage.saliency.explain import Drawing
from triage.saliency.meshes import organ_meshes
from triage.saliency.overlay import FOOTER, HEADER, ROOM
from triage.types import (
    ORGAN_LABEL,
    BundleRef,
    Finding,
    KeySlice,
    Organ,
    Series,
    Stack,
    Target,
    Verdict,
)

SHAPE = (72, 56, 24)  # of 4 x 4 x 5 mm, RAS+
LEFT = np.s_[12:22, 30:40, 8:18]  # a small x is the patient's left
# Right or left, front or back, feet or head first: every way to store axial slices.
STORED = ["".join(a) for a in product("LR", "AP", "SI")] + ["AR" + z for z in "SI"] + ["PLS"]


def _stack(axes: str, tilt: float) -> Stack:
    """A body with one bright organ on its left, stored along `axes`, turned by `tilt` degrees."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE[:2]], indexing="ij")
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[(x / 0.9) ** 2 + (y / 0.85) ** 2 < 1] = 40
    hu[LEFT] = 200
    affine = np.diag([4.0, 4.0, 5.0, 1.0])
    affine[:3, 3] = [-4.0 * 35.5, -4.0 * 27.5, 10.0]
    turn = np.radians(tilt)
    spin = np.eye(4)
    spin[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    image = nib.Nifti1Image(hu, spin @ affine)
    to = nib.orientations.axcodes2ornt(tuple(axes))
    moved = image.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(("R", "A", "S")), to)
    )
    return Stack(np.asarray(moved.dataobj), moved.affine, (), Series("1", "2", ()))


@pytest.mark.parametrize(("axes", "tilt"), [*((a, 0.0) for a in STORED), ("LPS", 7.0)])
def test_left_is_left(axes: str, tilt: float, tmp_path: Path) -> None:
    volume = to_volume(_stack(axes, tilt))
    straight = straightened(volume)
    grid = to_grid(straight, (4.0, 4.0, 5.0))
    bright = grid.as_tensor()[0] > 120
    anatomy = describe(bright.to(torch.uint8) * ORGAN_LABEL[Organ.KIDNEY_LEFT], grid.affine)
    hot = MetaTensor(bright[None].float(), affine=grid.affine)
    finding = Finding(
        Target.KIDNEY, Verdict.SUSPECTED, 0.9, key_slices=(KeySlice("", None, 12, 1),)
    )
    bundle = BundleRef("reference", "1", "0" * 64, "simulated")
    drawing = Drawing(bundle, volume, straight, Frame.around_body(volume, ROOM), tmp_path)
    (tmp_path / "overlays").mkdir()
    done = drawing.assessed(finding, hot, anatomy)

    image = nib.load(tmp_path / str(done.saliency))
    seen = nib.affines.apply_affine(image.affine, np.argwhere(image.get_fdata() > 0.5))
    true = np.array([-4.0 * 19, 4.0 * 7, 10 + 5 * 12.5])  # middle of the organ, mm in RAS+
    turn = np.radians(tilt)
    true[:2] = [true[0] * np.cos(turn) - true[1] * np.sin(turn),
                true[0] * np.sin(turn) + true[1] * np.cos(turn)]  # fmt: skip
    assert seen.mean(axis=0) == pytest.approx(true, abs=3.0)

    with Image.open(tmp_path / done.overlays[0]) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)[HEADER:-FOOTER, : ROOM[0]]
    red = np.argwhere(pixels[..., 0] - pixels[..., 2] > 40)
    assert len(red) > 50 and (red[:, 1] > ROOM[0] / 2).all()  # seen from the feet

    mesh = organ_meshes(anatomy.labels)[Organ.KIDNEY_LEFT]
    middle = float(straight.hu.affine[0, 3]) + 4.0 * (SHAPE[0] - 1) / 2
    assert (mesh.vertices[:, 0] < middle).all()
