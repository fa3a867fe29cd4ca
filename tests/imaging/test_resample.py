"""The working grid, there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import SpatialResample

from triage.imaging.resample import WORKING_SPACING, body_box, from_grid, to_grid
from triage.types import Series, Volume

SERIES = Series("1.2", "1.2.3", ())
spacings = st.tuples(*[st.floats(0.4, 6.0)] * 3)


def volume_of(hu: torch.Tensor, affine: np.ndarray) -> Volume:
    return Volume(MetaTensor(hu[None].float(), affine=torch.from_numpy(affine)), (), SERIES)


def diagonal(spacing, origin=(-40.0, 25.0, -300.0)) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def rotated(affine: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine


def world(shape, affine: np.ndarray) -> np.ndarray:
    """Voxel centres in mm, (X, Y, Z, 3)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def ramp(points: np.ndarray) -> np.ndarray:
    return 0.9 * points[..., 0] - 0.4 * points[..., 1] + 0.3 * points[..., 2]


@settings(max_examples=30, deadline=None)
@given(spacings, st.tuples(*[st.integers(3, 30)] * 3))
def test_a_ramp_is_exact_inside(spacing, shape) -> None:
    affine = diagonal(spacing)
    volume = volume_of(torch.from_numpy(ramp(world(shape, affine))), affine)
    grid = to_grid(volume, crop=False)
    assert tuple(grid.pixdim.tolist()) == pytest.approx(WORKING_SPACING)
    points = world(grid.shape[1:], grid.affine.numpy())
    # Inside: the averaging box does not reach beyond the outermost voxel centres.
    reach = (np.array(WORKING_SPACING) / 2 + np.array(spacing)) + 1e-3
    low = affine[:3, 3] + reach
    high = affine[:3, 3] + (np.array(shape) - 1) * spacing - reach
    inside = ((points >= low) & (points <= high)).all(axis=-1)
    assert np.abs(grid.numpy()[0] - ramp(points))[inside].max(initial=0.0) < 0.05


@settings(max_examples=30, deadline=None)
@given(spacings, st.tuples(*[st.integers(1, 30)] * 3))
def test_the_grid_covers_every_voxel_and_nothing_else(spacing, shape) -> None:
    affine = diagonal(spacing)
    grid = to_grid(volume_of(torch.full(shape, 40.0), affine), crop=False)
    low = grid.affine.numpy()[:3, 3] - np.array(WORKING_SPACING) / 2
    high = low + np.array(grid.shape[1:]) * WORKING_SPACING
    first, last = affine[:3, 3], affine[:3, 3] + (np.array(shape) - 1) * spacing
    assert (low <= first).all()
    assert (high >= last).all()
    assert torch.allclose(grid.as_tensor(), torch.tensor(40.0), atol=1e-3)  # no border of air


def test_thin_slices_are_averaged() -> None:
    noise = torch.randn(20, 20, 300, generator=torch.Generator().manual_seed(1)) * 30
    affine = diagonal((1.5, 1.5, 1.0))
    grid = to_grid(volume_of(noise, affine), crop=False)
    inner = grid.as_tensor()[0, :, :, 2:-2]
    assert inner.std() < 0.65 * noise.std()  # three slices: 1 / sqrt(3) = 0.58
    # Stripes finer than the grid must fade instead of turning up as a false structure.
    stripes = torch.where(torch.arange(300) % 2 == 0, 200.0, -200.0).expand(20, 20, 300)
    assert to_grid(volume_of(stripes, affine), crop=False)[0, :, :, 2:-2].abs().max() < 40


@settings(max_examples=25, deadline=None)
@given(spacings, st.sampled_from([0.0, 0.3]))
def test_there_and_back_is_close(spacing, angle) -> None:
    shape = tuple(max(4, int(60 / mm)) for mm in spacing)
    affine = rotated(diagonal(spacing), angle)
    points = world(shape, affine)
    smooth = 100 * np.sin(points[..., 0] / 15) * np.cos(points[..., 1] / 15 + points[..., 2] / 20)
    volume = volume_of(torch.from_numpy(smooth), affine)
    back = from_grid(to_grid(volume, crop=False), volume)
    assert back.shape == volume.hu.shape
    assert np.allclose(back.affine, affine)
    cut = tuple(slice(int(7 // mm) + 1, -int(7 // mm) - 1) for mm in spacing)
    error = np.abs(back.numpy()[0] - smooth)[cut]
    assert error.max(initial=0.0) < 20


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(1.2, 6.0)] * 3), st.sampled_from([0.0, 0.2]), st.booleans())
def test_zero_stays_zero_and_nothing_grows(spacing, angle, labels) -> None:
    grid_affine = diagonal(WORKING_SPACING, (0.0, 0.0, 0.0))
    values = torch.zeros(1, 24, 24, 12)
    values[:, 8:12, 10:13, 4:7] = -3.0
    values[:, 15, 15, 8] = 2.0
    grid_map = MetaTensor(values, affine=torch.from_numpy(grid_affine))
    affine = rotated(diagonal(spacing, (-10.0, -10.0, -10.0)), angle)
    shape = tuple(int(60 / mm) + 1 for mm in spacing)
    back = from_grid(grid_map, volume_of(torch.zeros(shape), affine), labels=labels).numpy()[0]
    assert back.min() >= -3.0 - 1e-5
    assert back.max() <= 2.0 + 1e-5
    index = world(shape, affine) / np.array(WORKING_SPACING)  # in grid voxels
    touched = values.numpy()[0] != 0
    near = np.stack(np.nonzero(touched))  # (3, n)
    distance = np.abs(index[..., None] - near).max(axis=-2).min(axis=-1)
    assert (back[distance >= 1.001] == 0).all()
    if labels:
        assert set(np.unique(back)) <= {-3.0, 0.0, 2.0}


@pytest.mark.parametrize("angle", [0.0, 0.15])
@pytest.mark.parametrize("labels", [False, True])
def test_edge_slices_are_not_repeated(angle: float, labels: bool) -> None:
    grid_map = MetaTensor(
        torch.ones(1, 20, 20, 5), affine=torch.from_numpy(diagonal(WORKING_SPACING, (0, 0, 0)))
    )
    affine = rotated(diagonal((1.5, 1.5, 1.0), (0.0, 0.0, -10.0)), angle)  # z from -10 to 29 mm
    back = from_grid(grid_map, volume_of(torch.zeros(20, 20, 40), affine), labels=labels)
    column = back.numpy()[0, 10, 10]  # the grid covers -1.5 to 13.5 mm
    z = np.arange(40) - 10.0
    assert (column[(z < -1.5) | (z > 13.5)] == 0).all()
    assert np.allclose(column[(z >= 0) & (z <= 12)], 1.0, atol=1e-4)
    edge = column[z == 13.0]
    assert edge == 1 if labels else 0 < edge < 1


def test_labels_keep_their_dtype_and_place() -> None:
    affine = diagonal((0.75, 0.75, 1.5))
    labels = torch.zeros(40, 40, 40)
    labels[10:20, 20:30, 12:24] = 6
    volume = volume_of(labels, affine)
    grid = to_grid(volume, crop=False)
    rounded = MetaTensor((grid.as_tensor() > 3).to(torch.uint8) * 6, affine=grid.affine)
    back = from_grid(rounded, volume, labels=True)
    assert back.dtype == torch.uint8
    assert (back.numpy()[0] == labels.numpy()).mean() > 0.99


def test_aligned_way_agrees_with_monai() -> None:
    """Upsampling is plain trilinear interpolation: MONAI's resampler is the oracle."""
    affine = diagonal((2.0, 2.0, 5.0))
    hu = torch.randn(12, 14, 9, generator=torch.Generator().manual_seed(2)) * 100
    volume = volume_of(hu, affine)
    grid = to_grid(volume, crop=False)
    sample = SpatialResample(mode="bilinear", padding_mode="border")
    expected = sample(volume.hu, dst_affine=grid.affine, spatial_size=grid.shape[1:])
    assert torch.allclose(grid.as_tensor(), expected.as_tensor(), atol=0.01)


def test_outside_an_oblique_scan_is_air() -> None:
    affine = rotated(diagonal((1.0, 1.0, 3.0)), 0.6)
    grid = to_grid(volume_of(torch.full((60, 60, 5), 50.0), affine), crop=False)
    assert grid[0, 0, 0, 2] == -1024
    middle = [n // 2 for n in grid.shape[1:]]
    assert float(grid[0, middle[0], middle[1], 2]) == pytest.approx(50, abs=0.01)


def test_body_box_leaves_out_air_and_table() -> None:
    hu = torch.full((1, 200, 200, 30), -1000.0)
    hu[:, 60:150, 70:140] = 40.0
    hu[:, 20:180, 30:33] = 200.0  # table
    image = MetaTensor(hu, affine=torch.diag(torch.tensor([2.0, 2.0, 5.0, 1.0])))
    x, y, z = body_box(image)
    assert 40 <= x.start <= 60
    assert 150 <= x.stop <= 170
    assert 50 <= y.start <= 70
    assert z == slice(0, 30)
    assert body_box(torch.full((1, 9, 9, 9), -1000.0)) == (slice(0, 9),) * 3
    grid = to_grid(Volume(image, (), SERIES))
    assert grid.shape[1] < 200 * 2 / 1.5 * 0.75
    assert grid.as_tensor().max() == pytest.approx(40, abs=1e-3)


def test_wrong_use_is_named() -> None:
    volume = volume_of(torch.zeros(4, 4, 4), diagonal((1, 1, 1)))
    with pytest.raises(ValueError, match="three positive spacings"):
        to_grid(volume, (1.0, 0.0, 1.0))
    oblique = MetaTensor(torch.zeros(1, 9, 9, 9), affine=torch.from_numpy(rotated(np.eye(4), 0.3)))
    with pytest.raises(ValueError, match="axis-aligned"):
        from_grid(oblique, volume)
    with pytest.raises(ValueError, match=r"\(1, X, Y, Z\)"):
        from_grid(MetaTensor(torch.zeros(2, 4, 4, 4)), volume)
