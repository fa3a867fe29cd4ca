"""The 48 turns of a volume."""

from __future__ import annotations

import pytest
import torch

from triage.imaging.turns import HEAD_FOOT, IDENTITY, LEFT_RIGHT, TURNS


def test_there_are_48_and_each_is_another() -> None:
    x = torch.arange(60.0).reshape(3, 4, 5)
    cubes = {tuple(t.apply(torch.arange(27).reshape(3, 3, 3)).flatten().tolist()) for t in TURNS}
    assert len(TURNS) == len(cubes) == len({t.code for t in TURNS}) == 48
    assert sum(t.mirrored for t in TURNS) == 24
    assert all(torch.equal(t.inverse.apply(t.apply(x)), x) for t in TURNS)


@pytest.mark.parametrize(
    ("turn", "code"), [(IDENTITY, "RAS"), (LEFT_RIGHT, "LAS"), (HEAD_FOOT, "RAI")]
)
def test_the_code_names_the_axes_as_they_are(turn: object, code: str) -> None:
    assert turn.code == code  # type: ignore[attr-defined]
    assert turn.mirrored == (code != "RAS")  # type: ignore[attr-defined]
