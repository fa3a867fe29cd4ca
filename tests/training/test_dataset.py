"""Series into the cache: grey levels to HU, masks onto the working grid, refusals by name."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from tests.training.small_layout import write_layout
from triage.imaging.resample import to_grid
from triage.inference.networks import load_networks
from triage.nets.bundle import find_bundle
from triage.nets.localiser import Localiser
from triage.training import scoring
from triage.training.cache import Entry, body_square
from triage.training.dataset import SeriesError, given_organs, on_grid, prepare, read_images
from triage.training.layout import read_layout
from triage.types import ORGAN_LABEL, Organ, Series, Target, Volume


def test_grey_levels_stand_for_the_abdominal_window(tmp_path: Path) -> None:
    grey = np.zeros((40, 60), np.uint8)
    grey[5, 10], grey[5, 11], grey[5, 12] = 255, 39, 102
    Image.fromarray(grey).save(tmp_path / "1.png")
    grid = read_images([tmp_path / "1.png"])
    assert grid.shape == (1, 60, 40, 1)
    # column 10 from the left is the patient's right, x runs to the right: +x; row 5 is in front
    hu = grid.as_tensor()[0, :, :, 0]
    assert float(hu[59 - 10, 39 - 5]) == 240
    assert float(hu[59 - 11, 39 - 5]) == pytest.approx(-99, abs=1)
    assert float(hu[59 - 12, 39 - 5]) == pytest.approx(0, abs=1)
    assert float(hu[0, 0]) == -1024


def test_real_slices_have_fat_where_fat_is(shared: Path) -> None:
    """The window of the real JPEG slices: subcutaneous fat is about -100 HU."""
    found = []
    for path in sorted((shared / "rsna2023" / "train_images").glob("*/*/*.jpg"))[::12]:
        hu = read_images([path]).numpy().ravel()
        counts, edges = np.histogram(hu[(hu > -140) & (hu < -50)], 18)
        found.append(edges[counts.argmax()])
    assert np.median(found) == pytest.approx(-100, abs=12)


def test_images_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(SeriesError, match="not 8 bits of grey"):
        read_images([tmp_path / "1.png"])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "2.png")
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "3.png")
    with pytest.raises(SeriesError, match="different sizes"):
        read_images([tmp_path / "2.png", tmp_path / "3.png"])
    (tmp_path / "4.jpg").write_bytes(b"x")
    with pytest.raises(SeriesError, match=r"4\.jpg cannot be read"):
        read_images([tmp_path / "4.jpg"])


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_masks_lie_on_the_working_grid_however_they_are_stored(
    flips: tuple[int, int, int], tmp_path: Path
) -> None:
    shape, spacing = (60, 50, 20), np.array([1.0, 1.2, 2.5])
    hu = torch.full((1, *shape), -1000.0)
    hu[0, 5:55, 5:45] = 40.0
    hu[0, 20:30, 12:25, 4:12] = 200.0
    affine = np.diag([*spacing, 1.0])
    volume = Volume(MetaTensor(hu, affine=torch.from_numpy(affine)), (), Series("", "", ()))
    grid = to_grid(volume)
    mask = (hu[0].numpy() == 200).astype(np.uint8)
    stored = affine @ np.diag([*flips, 1.0])
    for axis, flip in enumerate(flips):
        if flip < 0:
            mask = np.flip(mask, axis)
            stored[axis, 3] = spacing[axis] * (shape[axis] - 1)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(mask), stored), tmp_path / "m.nii.gz")
    found = on_grid(tmp_path / "m.nii.gz", volume, grid)
    bright = grid.as_tensor()[0].numpy() > 120
    assert found.shape == bright.shape
    assert 2 * (bright & (found > 0)).sum() / (bright.sum() + found.sum()) > 0.9
    nib.save(nib.Nifti1Image(mask[:-1], stored), tmp_path / "short.nii.gz")
    with pytest.raises(SeriesError, match="voxels"):
        on_grid(tmp_path / "short.nii.gz", volume, grid)


def test_organ_labels_of_the_challenge_and_of_simulated_sets() -> None:
    values = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    organs, known = given_organs(values, None)
    assert organs.ravel()[3] == ORGAN_LABEL[Organ.KIDNEY_LEFT]
    assert organs.ravel()[4] == ORGAN_LABEL[Organ.KIDNEY_RIGHT]
    assert Organ.AORTA in known
    organs, known = given_organs(values, {"liver": 7})
    assert organs.ravel().tolist() == [0] * 7 + [ORGAN_LABEL[Organ.LIVER]]
    assert known == (Organ.LIVER,)


@pytest.fixture
def localiser() -> Localiser:
    return load_networks(find_bundle("reference"), "cpu").localiser


def test_a_prepared_series_is_not_prepared_again_until_it_changes(
    tmp_path: Path, localiser: Localiser
) -> None:
    data, work = write_layout(tmp_path / "data", [True, False], slices=2), tmp_path / "work"
    entries, left = prepare(read_layout(data), work, localiser)
    assert not left
    entry = entries[0]
    assert not entry.is_volume
    assert not entry.simulated
    assert (entry.patient_id, entry.grade(Target.LIVER)) == ("100", 1)
    assert entry.hu.shape == (2, 96, 96)
    made = (entry.folder / "meta.json").stat().st_mtime_ns
    prepare(read_layout(data), work, localiser)
    assert (entry.folder / "meta.json").stat().st_mtime_ns == made
    image = data / "train_images" / "100" / "9000" / "1.png"
    image.write_bytes(b"broken")
    entries, left = prepare(read_layout(data), work, localiser)
    assert [e.patient_id for e in entries] == ["101"]
    assert left == ["100/9000 (1.png cannot be read (UnidentifiedImageError))"]


def test_the_square_around_the_body(tmp_path: Path) -> None:
    data = write_layout(tmp_path / "data", [False], slices=2)
    paths = sorted((data / "train_images" / "100" / "9000").glob("*.png"))
    x, y, side = body_square(read_images(paths))
    assert (x, y) == pytest.approx((47.5, 47.5), abs=3)
    assert 0.85 * 96 <= side <= 96


def test_entries_of_simulated_sets_say_so(tmp_path: Path) -> None:
    assert Entry(tmp_path / "p0", {"person": "p0"}).simulated


def test_scores_that_a_kill_left_in_half_are_made_again(tmp_path: Path) -> None:
    def row(patient: str, target: str) -> scoring.Row:
        return {"patient_id": patient, "series_id": "1", "target": target, "score": 0.5}

    path = tmp_path / "scores.csv"
    assert scoring.whole_series(path, 2) == set()
    some = [row("a", "liver"), row("a", "spleen"), row("b", "liver")]
    scoring.append(path, scoring.FIELDS, some)
    with path.open("a") as file:
        file.write("b,,1,spl")
    for _ in range(2):
        assert scoring.whole_series(path, 2) == {("a", "1")}
        assert [r["target"] for r in scoring.read(path)] == ["liver", "spleen"]
    path.write_text("patient_id,series_id\n")
    assert scoring.whole_series(path, 2) == set()
    assert not path.exists()
