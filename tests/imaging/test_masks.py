"""Boxes around masks, and masks grown by whole voxels."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from triage.imaging.masks import box_of, grown, occupied

SEEDS = st.integers(0, 10_000)


def _mask(seed: int, share: float = 0.02) -> torch.Tensor:
    return torch.rand(9, 7, 11, generator=torch.Generator().manual_seed(seed)) < share


@given(SEEDS, st.sampled_from([torch.bool, torch.uint8, torch.float32]))
def test_the_box_is_the_smallest_one(seed: int, kind: torch.dtype) -> None:
    mask = _mask(seed)
    for axis, used in enumerate(occupied(mask.to(kind))):
        others = tuple(a for a in range(3) if a != axis)
        assert used.tolist() == mask.numpy().any(axis=others).tolist()
    places = mask.nonzero()
    box = box_of(mask.to(kind))
    if len(places) == 0:
        assert box is None
        return
    assert box is not None
    assert [s.start for s in box] == places.amin(0).tolist()
    assert [s.stop - 1 for s in box] == places.amax(0).tolist()


@given(SEEDS, st.tuples(*[st.integers(0, 4)] * 3))
def test_growing_is_dilation_by_a_box(seed: int, reach: tuple[int, int, int]) -> None:
    mask = torch.stack([_mask(seed), _mask(seed + 1)])[None]  # (1, 2, X, Y, Z)
    box = torch.ones(*(2 * r + 1 for r in reach)).numpy()
    for own, single in zip(grown(mask, reach)[0], mask[0], strict=True):
        assert own.tolist() == ndimage.binary_dilation(single.numpy(), box).tolist()
        assert grown(single, reach).tolist() == own.tolist()
