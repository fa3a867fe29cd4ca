"""Whatever axes the scanner used, the same body gives the same RAS+ volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from triage.imaging.volume import AIR_HU, straightened, to_volume
from triage.reasons import NotAnalysed
from triage.types import Instance, Series, Stack, Volume

SERIES = Series("1.2", "1.2.3", ())
SHAPE = (4, 5, 6)
RAS = np.array([[0.7, 0, 0, -12], [0, 0.8, 0, 30], [0, 0, 2.5, -400], [0, 0, 0, 1.0]])
HU = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)  # each voxel has its own value


def turned(order: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The reference body with its axes permuted and flipped, and the affine that says so."""
    hu = HU.transpose(order)
    affine = np.eye(4)
    affine[:3, :3] = RAS[:3, :3][:, order]
    affine[:3, 3] = RAS[:3, 3]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
            affine[:3, axis] *= -1
            hu = np.flip(hu, axis)
    return hu, affine


@given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_every_permutation_and_flip_gives_the_same_volume(order, flips) -> None:
    hu, affine = turned(tuple(order), flips)
    volume = to_volume(Stack(hu, affine, (), SERIES))
    assert volume.hu.dtype == torch.float32
    assert np.array_equal(volume.hu.numpy()[0], HU)
    assert np.allclose(volume.hu.affine, RAS)
    assert volume.spacing == pytest.approx((0.7, 0.8, 2.5))


@given(st.floats(-0.6, 0.6), st.tuples(*[st.booleans()] * 3))
def test_oblique_keeps_its_rotation(angle, flips) -> None:
    hu, affine = turned((0, 1, 2), flips)
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    volume = to_volume(Stack(hu, rotation @ affine, (), SERIES))
    assert np.array_equal(volume.hu.numpy()[0], HU)
    assert np.allclose(volume.hu.affine, rotation @ RAS)


@pytest.mark.parametrize("flip", [False, True])
def test_instances_follow_their_slices(flip: bool) -> None:
    hu, affine = turned((0, 1, 2), (False, True, flip))
    # The instance number says which slice of the stack an instance is.
    instances = tuple(Instance(Path(str(k)), f"1.{k}", k) for k in range(SHAPE[2]))
    volume = to_volume(Stack(hu, affine, instances, SERIES))
    for k, instance in enumerate(volume.instances):
        assert instance.instance_number is not None
        own = np.flip(hu[:, :, instance.instance_number], 1)
        assert np.array_equal(volume.hu.numpy()[0, :, :, k], own)


def test_padding_becomes_air_and_the_stack_is_left_alone() -> None:
    hu = HU.astype(np.float32)
    hu[0, 0, 0] = -3024
    padding = np.zeros(SHAPE, dtype=bool)
    padding[1, 1, 1] = True
    before = hu.copy()
    volume = to_volume(Stack(hu, RAS, (), SERIES, padding=padding))
    assert volume.hu[0, 0, 0, 0] == AIR_HU
    assert volume.hu[0, 1, 1, 1] == AIR_HU
    assert volume.hu.min() == AIR_HU
    assert np.array_equal(hu, before)


def test_other_byte_order() -> None:
    volume = to_volume(Stack(HU.astype(">i2"), RAS, (), SERIES))
    assert np.array_equal(volume.hu.numpy()[0], HU)


def refused(**changes: object) -> str:
    parts = {"hu": HU, "affine": RAS, "instances": (), "series": SERIES} | changes
    with pytest.raises(NotAnalysed) as caught:
        to_volume(Stack(**parts))
    return caught.value.code


def test_refusals() -> None:
    not_a_number = HU.astype(np.float32)
    not_a_number[2, 2, 2] = np.nan
    singular = RAS.copy()
    singular[:, 2] = singular[:, 1]
    instances = tuple(Instance(Path(str(k))) for k in range(SHAPE[2]))
    coronal, coronal_affine = turned((0, 2, 1), (False, False, False))
    assert refused(hu=not_a_number) == "PIXELS_INCONSISTENT"
    assert refused(hu=HU[0]) == "BAD_DIMENSIONS"
    assert refused(instances=instances[1:]) == "BAD_DIMENSIONS"
    assert refused(padding=np.zeros((1, 2, 3), dtype=bool)) == "BAD_DIMENSIONS"
    assert refused(affine=singular) == "BAD_GEOMETRY"
    assert refused(affine=RAS * np.nan) == "BAD_GEOMETRY"
    assert (
        refused(hu=coronal, affine=coronal_affine, instances=instances[: coronal.shape[2]])
        == "BAD_GEOMETRY"
    )


def test_an_oblique_volume_is_straightened_voxel_by_voxel() -> None:
    turn = np.radians(12.0)
    affine = np.eye(4)
    affine[:3, :3] = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    ) @ np.diag([0.8, 0.8, 2.0])
    affine[:3, 3] = (3.0, -7.0, 11.0)
    hu = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(1, 2, 3, 4)
    series = Series("1.2", "1.2.3", ())
    oblique = Volume(MetaTensor(hu, affine=torch.from_numpy(affine)), (), series)
    straight = straightened(oblique)
    assert torch.equal(straight.hu.as_tensor(), hu)
    assert np.allclose(straight.spacing, (0.8, 0.8, 2.0))
    assert np.allclose(
        straight.hu.affine, [[0.8, 0, 0, 3], [0, 0.8, 0, -7], [0, 0, 2, 11], [0, 0, 0, 1]]
    )
