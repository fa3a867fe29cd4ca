"""What a radiologist sees: sides, colours, words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from triage.imaging.volume import to_volume
from triage.saliency import overlay
from triage.saliency.overlay import contact_sheet, draw_overlay, draw_plain, saliency_scale
from triage.types import BundleRef, Finding, Instance, Series, Stack, Target, Verdict, Volume

BUNDLE = BundleRef("reference", "1.2.3", "ab" * 32, "simulated")
SUSPECTED = Finding(Target.LIVER, Verdict.SUSPECTED, 0.83)
SHAPE = (80, 60, 10)
FEET = 3  # slice with the marks


def body(affine: np.ndarray | None = None) -> Volume:
    """An elliptic body of 60 HU with bone at the back (spine)."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE[:2]], indexing="ij")
    hu = np.full(SHAPE, -1000.0, dtype=np.float32)
    hu[(x / 0.9) ** 2 + (y / 0.85) ** 2 < 1] = 60
    hu[36:44, 10:18] = 800
    affine = np.diag([4.0, 4.0, 5.0, 1.0]) if affine is None else affine
    instances = tuple(Instance(Path(str(k)), f"1.{k}", 100 + k) for k in range(SHAPE[2]))
    return to_volume(Stack(hu, affine, instances, Series("1", "2", ())))


def saliency_at(volume: Volume, x: slice, y: slice, value: float = 1.0) -> MetaTensor:
    values = torch.zeros_like(volume.hu.as_tensor())
    values[0, x, y, FEET - 1 : FEET + 2] = value
    return MetaTensor(values, affine=volume.hu.affine)


def draw(path: Path, volume: Volume, saliency: MetaTensor | None, finding=SUSPECTED, **options):
    index = options.pop("index", FEET)
    options = {"bundle": BUNDLE, "score_name": "score"} | options
    draw_overlay(volume, finding, saliency, index, path, **options)
    return pixels(path)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def image_area(picture: np.ndarray) -> np.ndarray:
    height = overlay.SIZE[1] - overlay.FOOTER
    return picture[overlay.HEADER : height, : overlay.ROOM[0]]


def reddish(picture: np.ndarray) -> np.ndarray:
    area = image_area(picture)
    return np.argwhere(area[..., 0] - area[..., 2] > 40)


def bluish(picture: np.ndarray) -> np.ndarray:
    area = image_area(picture)
    return np.argwhere(area[..., 2] - area[..., 0] > 40)


# RAS+: larger x is the patient's right, larger y is anterior.
RIGHT, LEFT = slice(60, 66), slice(14, 20)
FRONT, BACK = slice(40, 46), slice(20, 26)


@pytest.mark.parametrize(
    ("x", "y", "image_left", "image_top"),
    [(RIGHT, FRONT, True, True), (LEFT, BACK, False, False), (LEFT, FRONT, False, True)],
)
def test_right_is_on_the_left_and_anterior_on_top(tmp_path, x, y, image_left, image_top) -> None:
    volume = body()
    red = reddish(draw(tmp_path / "a.png", volume, saliency_at(volume, x, y)))
    row, column = red.mean(axis=0)
    assert (column < overlay.ROOM[0] / 2) == image_left
    assert (row < overlay.ROOM[1] / 2) == image_top


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1), (1, -1, -1)])
def test_sides_hold_for_every_patient_position(tmp_path: Path, signs) -> None:
    """The same mark in the world, whatever way the scanner stored the axes."""
    affine = np.diag([4.0 * signs[0], 4.0 * signs[1], 5.0 * signs[2], 1.0])
    volume = body(affine)
    centre = np.linalg.inv(volume.hu.affine.numpy())
    middle = volume.hu.affine.numpy() @ [39.5, 29.5, 0, 1]
    i, j, _, _ = np.rint(centre @ (middle + np.array([80, 40, 0, 0]))).astype(
        int
    )  # 80 mm to the right
    red = reddish(
        draw(
            tmp_path / "a.png",
            volume,
            saliency_at(volume, slice(i - 3, i + 3), slice(j - 3, j + 3)),
        )
    )
    row, column = red.mean(axis=0)
    assert column < overlay.ROOM[0] / 2
    assert row < overlay.ROOM[1] / 2


def test_spine_is_at_the_bottom(tmp_path: Path) -> None:
    area = image_area(pixels(draw_plain(body(), Target.LIVER, FEET, tmp_path / "a.png")))
    half = area[60:-60, 60:-60].min(axis=-1)  # without the orientation letters
    row, _ = np.argwhere(half > 250).mean(axis=0)
    assert row > half.shape[0] / 2


def test_true_aspect(tmp_path: Path) -> None:
    """Pixels of 2 x 4 mm: the body is drawn as wide as it is, not as its voxels count."""
    volume = body(np.diag([2.0, 4.0, 5.0, 1.0]))
    area = image_area(pixels(draw_plain(volume, Target.LIVER, FEET, tmp_path / "a.png")))
    inside = area[:, 60:-60].min(axis=-1)[60:-60] > 60
    rows, columns = np.argwhere(inside).T
    wide, high = np.ptp(columns) / 2.0, np.ptp(rows) / 4.0
    # 72 x 50 voxels
    assert wide / high == pytest.approx(0.9 * 80 / (0.85 * 60), rel=0.08)


def test_red_is_for_and_blue_against(tmp_path: Path) -> None:
    volume = body()
    plus = draw(tmp_path / "a.png", volume, saliency_at(volume, RIGHT, FRONT))
    minus = draw(tmp_path / "b.png", volume, saliency_at(volume, RIGHT, FRONT, -1.0))
    assert len(reddish(plus)) > 100
    assert len(bluish(plus)) == 0
    assert len(bluish(minus)) > 100
    assert len(reddish(minus)) == 0


def test_the_hottest_area_stays_visible(tmp_path: Path) -> None:
    """Inside the contour the slice keeps its grey values nearly unchanged."""
    volume = body()
    marked = draw(tmp_path / "a.png", volume, saliency_at(volume, slice(54, 72), slice(26, 50)))
    plain = pixels(draw_plain(volume, Target.LIVER, FEET, tmp_path / "b.png"))
    row, column = reddish(marked).mean(axis=0).round().astype(int)
    there = np.s_[row - 5 : row + 5, column - 5 : column + 5]
    change = np.abs(image_area(marked)[there] - image_area(plain)[there])
    assert 0 < change.max() < 20


def test_zero_saliency_paints_nothing_and_says_so(tmp_path: Path) -> None:
    volume = body()
    empty = MetaTensor(torch.zeros_like(volume.hu.as_tensor()), affine=volume.hu.affine)
    assert saliency_scale(empty) == 0
    marked = image_area(draw(tmp_path / "a.png", volume, empty))
    plain = image_area(pixels(draw_plain(volume, Target.LIVER, FEET, tmp_path / "b.png")))
    assert np.array_equal(marked[:-40], plain[:-40])
    assert not np.array_equal(marked[-40:], plain[-40:])  # "no attribution in this slice"


def test_other_slices_share_the_scale(tmp_path: Path) -> None:
    """A faint slice must not be stretched to full colour."""
    volume = body()
    saliency = saliency_at(volume, RIGHT, FRONT)
    saliency[:, :, :, FEET + 1] *= 0.05
    assert len(reddish(draw(tmp_path / "a.png", volume, saliency))) > 100
    assert len(reddish(draw(tmp_path / "b.png", volume, saliency, index=FEET + 1))) == 0


def test_a_small_hot_spot_in_a_large_map_has_a_scale() -> None:
    values = torch.zeros(1, 200, 200, 200)
    values[0, 101, 103, 107] = -2.0
    assert saliency_scale(MetaTensor(values)) == pytest.approx(2.0)


def test_words_are_burnt_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text leaves pixels of its own: without it the picture is another one."""
    volume = body()
    saliency = saliency_at(volume, RIGHT, FRONT)
    whole = draw(tmp_path / "a.png", volume, saliency)
    footer = whole[-overlay.FOOTER :]
    amber = (np.abs(footer - np.array(overlay.AMBER)).sum(axis=-1) < 30).sum()
    assert amber > 500
    other_bundle = BundleRef("reference", "1.2.4", "ab" * 32, "simulated")
    changes = [
        draw(tmp_path / "b.png", volume, saliency, bundle=other_bundle),
        draw(tmp_path / "b.png", volume, saliency, score_name="probability"),
        draw(tmp_path / "b.png", volume, saliency, Finding(Target.LIVER, Verdict.SUSPECTED, 0.84)),
        draw(
            tmp_path / "b.png", volume, saliency, Finding(Target.LIVER, Verdict.UNCERTIFIED, 0.83)
        ),
        draw(tmp_path / "b.png", volume, saliency, index=FEET + 1),
    ]
    monkeypatch.setattr(overlay, "DISCLAIMER", "")
    changes.append(draw(tmp_path / "b.png", volume, saliency))
    for changed in changes:
        assert not np.array_equal(changed, whole)


def test_organ_outline_is_thin(tmp_path: Path) -> None:
    volume = body()
    mask = saliency_at(volume, slice(50, 70), slice(15, 50))
    saliency = saliency_at(volume, LEFT, FRONT)
    without = image_area(draw(tmp_path / "a.png", volume, saliency))
    outlined = image_area(draw(tmp_path / "b.png", volume, saliency, organ_mask=mask))
    share = (np.abs(outlined - without).max(axis=-1) > 10).mean()
    assert 0.0005 < share < 0.02


def test_not_assessed_is_drawn_with_its_reason(tmp_path: Path) -> None:
    volume = body()
    finding = Finding(Target.EXTRAVASATION, Verdict.NOT_ASSESSED, None, reason="NO_CONTRAST")
    picture = draw(tmp_path / "a.png", volume, None, finding, index=None)
    area = image_area(picture)
    assert (np.abs(area - np.array(overlay.AMBER)).sum(axis=-1) < 30).sum() > 500
    with pytest.raises(ValueError, match="Expected a saliency map"):
        draw(tmp_path / "a.png", volume, None)


def test_maps_of_another_geometry_are_refused(tmp_path: Path) -> None:
    volume = body()
    saliency = saliency_at(volume, RIGHT, FRONT)
    mirrored = saliency.affine.clone()
    mirrored[0, 0] *= -1
    with pytest.raises(ValueError, match="volume's affine"):
        draw(tmp_path / "a.png", volume, MetaTensor(saliency.as_tensor(), affine=mirrored))
    with pytest.raises(ValueError, match="on voxels"):
        draw(tmp_path / "a.png", volume, saliency[:, :-1])
    with pytest.raises(ValueError, match="finite"):
        draw(tmp_path / "a.png", volume, saliency * torch.nan)
    with pytest.raises(IndexError):
        draw(tmp_path / "a.png", volume, saliency, index=SHAPE[2])
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", ["sheet.png", "sheet.pdf"])
def test_contact_sheet(tmp_path: Path, name: str) -> None:
    pictures = [draw_plain(body(), target, None, tmp_path / f"{target}.png") for target in Target]
    sheet = tmp_path / "new" / name
    contact_sheet(pictures, sheet)
    if name.endswith("png"):
        with Image.open(sheet) as picture:
            assert picture.size[0] == 1800  # three columns, two rows
    else:
        assert sheet.read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], tmp_path / name)
