"""Pictures lie as a radiologist sees them, and a millimetre keeps its size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from triage.inference.crops import VIEWS, View, cut, judged_slices, region
from triage.nets.slice_net import SIZE
from triage.types import ORGAN_LABEL, Organ, Target

PIXEL = 1.5
VIEW = View(210.0, (Organ.LIVER,))


def _spot(x: int, y: int, z: int = 3, shape: tuple[int, int, int] = (120, 100, 8)) -> torch.Tensor:
    hu = torch.full(shape, -110.0)
    hu[x - 2 : x + 3, y - 2 : y + 3, z] = 270.0
    return hu


def _found(picture: torch.Tensor) -> tuple[float, float]:
    """Row and column of the bright spot's centre."""
    hot = (picture > 0).nonzero().float()
    row, column = hot.mean(0).tolist()
    return row, column


def test_the_patients_right_is_on_the_left_and_the_front_on_top() -> None:
    right_front = cut(_spot(90, 80), [3], (60.0, 50.0), VIEW, PIXEL)[0, 1]
    row, column = _found(right_front)
    assert row < SIZE / 2
    assert column < SIZE / 2
    left_back = cut(_spot(30, 20), [3], (60.0, 50.0), VIEW, PIXEL)[0, 1]
    row, column = _found(left_back)
    assert row > SIZE / 2
    assert column > SIZE / 2


@settings(max_examples=25, deadline=None)
@given(dx=st.integers(-40, 40), dy=st.integers(-30, 30))
def test_a_millimetre_keeps_its_size(dx: int, dy: int) -> None:
    row, column = _found(cut(_spot(60 + dx, 50 + dy), [3], (60.0, 50.0), VIEW, PIXEL)[0, 1])
    scale = (SIZE - 1) / VIEW.field_mm  # picture pixels a mm
    middle = (SIZE - 1) / 2
    assert abs(column - (middle - dx * PIXEL * scale)) < 1.0
    assert abs(row - (middle - dy * PIXEL * scale)) < 1.0


def test_channels_are_the_neighbouring_slices() -> None:
    pictures = cut(_spot(60, 50, z=3), [2, 3, 4], (60.0, 50.0), VIEW, PIXEL)
    bright = pictures.amax((2, 3)) > 0  # (slices, channels)
    assert bright.tolist() == [[False, False, True], [False, True, False], [True, False, False]]


def test_beside_the_scan_is_air_and_edge_slices_exist() -> None:
    pictures = cut(torch.full((120, 100, 8), 270.0), [0, 7], (0.0, 0.0), VIEW, PIXEL)
    assert torch.isfinite(pictures).all()
    assert float(pictures.min()) == pytest.approx(-1.0)
    assert float(pictures.max()) == pytest.approx(1.0)


def test_regions_follow_the_organ() -> None:
    labels = torch.zeros(120, 100, 30, dtype=torch.uint8)
    labels[70:100, 40:61, 5:16] = ORGAN_LABEL[Organ.LIVER]
    hu = torch.full(labels.shape, 40.0)
    found = region(labels, hu, VIEWS[Target.LIVER][0])
    assert found is not None
    assert found.centre == (84.5, 50.0)
    assert judged_slices(found) == [5, 7, 9, 11, 13, 15]
    assert region(labels, hu, VIEWS[Target.SPLEEN][0]) is None
