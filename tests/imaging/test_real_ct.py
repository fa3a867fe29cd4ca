"""Real scans: the anatomy must be where the coordinates say it is."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from triage.imaging.measure import measure
from triage.imaging.resample import from_grid, to_grid
from triage.imaging.volume import to_volume
from triage.types import Series, Stack


def stack_of(path: Path) -> Stack:
    image = nib.load(path)
    return Stack(np.asanyarray(image.dataobj), image.affine, (), Series("", path.name, ()))


@pytest.fixture(scope="module")
def pair(shared: Path) -> tuple[Stack, Stack]:
    """CT of a whole abdomen and its organs: 1 spleen, 2 right, 3 left kidney, 4 liver."""
    folder = shared / "ct"
    return stack_of(folder / "portal_abdomen_b.nii.gz"), stack_of(
        folder / "portal_abdomen_b_organs.nii.gz"
    )


def test_organs_lie_on_their_sides(pair: tuple[Stack, Stack]) -> None:
    volume, organs = to_volume(pair[0]), to_volume(pair[1])
    grid = to_grid(volume)
    labels = organs.hu.as_tensor().clamp(min=0)
    centre = {
        label: torch.nonzero(labels[0] == label).double().mean(0).tolist() for label in (1, 2, 3, 4)
    }
    affine = volume.hu.affine.numpy()
    right = {label: (affine @ [*c, 1.0])[0] for label, c in centre.items()}
    middle = (grid.affine.numpy() @ [grid.shape[1] / 2, 0, 0, 1.0])[0]
    assert right[4] < middle < right[1] or right[4] > middle > right[1]  # opposite sides
    assert right[4] > right[1]  # RAS+: the liver lies right, at larger x
    assert right[2] > right[3]
    # Organ HU survive the way to the grid and back.
    back = from_grid(grid, volume).numpy()
    liver = labels.numpy() == 4
    assert back[liver].mean() == pytest.approx(volume.hu.numpy()[liver].mean(), abs=8)


def test_masks_survive_the_grid(pair: tuple[Stack, Stack]) -> None:
    volume, organs = to_volume(pair[0]), to_volume(pair[1])
    liver = (organs.hu.as_tensor() == 4).float()
    mask = to_volume(Stack(liver[0].numpy(), organs.hu.affine.numpy(), (), organs.series))
    grid = to_grid(mask, crop=False)
    label = MetaTensor((grid.as_tensor() > 0.5).to(torch.uint8), affine=grid.affine)
    back = from_grid(label, volume, labels=True).as_tensor().float()
    dice = 2 * (back * liver).sum() / (back.sum() + liver.sum())
    assert dice > 0.93  # 5 mm slices on a 3 mm grid


def test_quality_of_a_real_scan(shared: Path) -> None:
    found = measure(to_volume(stack_of(shared / "ct" / "plain_trunk_3mm.nii.gz")))
    assert found["plausible"] is True
    assert found["noise_hu"] is not None
    assert 3 < found["noise_hu"] < 30
