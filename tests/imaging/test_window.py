from __future__ import annotations

import pytest
import torch

from triage.imaging.window import window
from triage.imaging.windows import TARGET_WINDOW, WINDOWS
from triage.types import TARGETS


def test_a_window_is_fixed_and_clipped() -> None:
    hu = torch.tensor([[-1024.0, -160.0, 40.0, 240.0, 3000.0]])
    shown = window(hu, *WINDOWS["soft_tissue"])
    assert torch.allclose(shown, torch.tensor([[0, 0, 0.5, 1, 1]]))
    # The same HU look the same whatever else the image holds.
    assert window(hu[:, 2:3], -160, 240) == pytest.approx(0.5)


def test_every_target_has_a_window() -> None:
    assert set(TARGET_WINDOW) == set(TARGETS)
    for name in TARGET_WINDOW.values():
        assert WINDOWS[name].low < WINDOWS[name].high
    assert (WINDOWS["soft_tissue"].width, WINDOWS["soft_tissue"].level) == (400, 40)


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        window(torch.zeros(1), 10, 10)
