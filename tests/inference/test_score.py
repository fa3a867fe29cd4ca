"""From slice logits to a study."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from triage.inference.score import pool_slices

logits = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=40)


@given(logits, st.floats(0, 6, width=32), st.integers(0, 39))
def test_a_stronger_slice_never_lowers_the_study(values: list[float], more: float, at: int) -> None:
    before = torch.tensor([values])
    after = before.clone()
    after[0, at % len(values)] += more
    assert pool_slices(after) >= pool_slices(before) - 1e-4


@given(logits)
def test_the_study_lies_within_its_slices(values: list[float]) -> None:
    pooled = pool_slices(torch.tensor([values, values]))
    assert min(values) - 1e-4 <= pooled <= max(values) + 1e-4


def test_one_bright_slice_counts_less_than_three() -> None:
    quiet = torch.full((2, 30), -4.0)
    one, three = quiet.clone(), quiet.clone()
    one[:, 10] = 4.0
    three[:, 9:12] = 4.0
    assert pool_slices(quiet) < pool_slices(one) < pool_slices(three)
