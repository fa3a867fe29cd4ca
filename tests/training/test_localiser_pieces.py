"""How patients are varied for the localiser: labels stay with their organs."""

from __future__ import annotations

import numpy as np
import torch

from triage.training.localiser import BUILD, VOXEL_MM, WARP_MM, augment, stretch, warp


def body() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(40, 30, 20, dtype=torch.uint8)
    labels[10:20, 10:20, 5:15] = 3
    hu = torch.where(labels == 3, 120.0, 40.0)
    hu[:4] = -1000.0
    return hu, labels


def test_a_stretched_organ_keeps_its_label_and_its_grey() -> None:
    hu, labels = body()
    sides = set()
    for seed in range(8):
        wide, named = stretch(hu, labels, np.random.default_rng(seed))
        assert wide.shape == named.shape
        assert named.dtype == labels.dtype
        for new, old in zip(wide.shape, hu.shape, strict=True):
            assert BUILD[0] * old - 1 <= new <= BUILD[1] * old + 1
        assert abs(float(wide[named == 3].median()) - 120) < 1
        assert abs(float((named == 3).float().mean()) - float((labels == 3).float().mean())) < 0.02
        sides.add(tuple(wide.shape))
    assert len(sides) > 4


def test_a_moved_organ_keeps_its_label_and_its_grey() -> None:
    hu, labels = body()
    voxels = torch.nonzero(labels == 3).float()
    shifts = []
    for seed in range(24):
        moved, named = warp(hu, labels, np.random.default_rng(seed))
        assert moved.shape == named.shape == hu.shape and named.dtype == labels.dtype
        assert set(named.unique().tolist()) == {0, 3}
        assert abs(float(moved[named == 3].median()) - 120) < 1
        assert float(moved.min()) > -1001 and float(moved.max()) < 121  # nothing from outside
        shifts.append((torch.nonzero(named == 3).float().mean(0) - voxels.mean(0)).numpy())
    mm = np.array(shifts) * VOXEL_MM
    assert np.all(mm.std(0) > 0.3 * WARP_MM) and np.all(np.abs(mm).max(0) < 4 * WARP_MM)
    same = warp(hu, labels, np.random.default_rng(1))
    assert torch.equal(same[0], warp(hu, labels, np.random.default_rng(1))[0])


def test_air_is_never_changed_but_by_noise_and_blur_and_organs_shift_as_a_whole() -> None:
    hu, labels = body()
    shifts = []
    for seed in range(12):
        out = augment(hu, labels, np.random.default_rng(seed), torch.Generator().manual_seed(seed))
        assert abs(float(out[:2].mean()) + 1000) < 10
        organ = out[12:18, 12:18, 7:13]
        assert float(organ.std()) < 25
        shifts.append(float(organ.mean() - out[25:35, 22:28].mean()))
    assert np.std(shifts) > 8  # organs against their surroundings: 80 HU before
