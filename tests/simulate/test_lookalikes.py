"""Look-alikes: in everybody, without a label, and unlike injuries in what a reader goes by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.simulate.bodies import canvas
from triage.simulate import incidental, lookalikes
from triage.simulate.canvas import Canvas
from triage.simulate.injuries import injure
from triage.simulate.plan import Case
from triage.simulate.tissues import Tissue

ALL: dict[str, Callable[[Canvas], bool]] = {
    "cyst": lambda c: lookalikes.cyst(c, "liver"),
    "tumour": lambda c: lookalikes.tumour(c, "liver"),
    "cleft": lambda c: lookalikes.cleft(c, "spleen"),
    **{key.split(".")[0]: add for key, add in lookalikes.SOMETIMES.items()},
    **{key.split(".")[0]: add for key, add in incidental.SOMETIMES.items()},
}


@pytest.mark.parametrize("name", ALL)
def test_every_lookalike_is_seen_and_gets_no_mask(name: str) -> None:
    c = canvas()
    before = c.hu.clone()
    assert any(ALL[name](c) for _ in range(20))
    assert not torch.equal(c.hu, before)
    assert bool(torch.isfinite(c.hu).all())
    assert not c.masks and c.lesions and all(i["target"] is None for i in c.lesions)


def test_injured_and_healthy_get_the_same_ones() -> None:
    kinds = []
    for case in (Case(), Case(liver=2, kidney=1)):
        c = canvas(seed=3)
        lookalikes.add_all(c)
        kinds.append(list(c.lesions))
        injure(c, case)
    assert kinds[0] == kinds[1]


def test_a_cyst_is_water_and_ascites_is_no_blood() -> None:
    c = canvas()
    before = c.hu.clone()
    assert any(lookalikes.cyst(c, "kidney_left") for _ in range(9))
    inside = (c.hu - before) < -60
    assert -10 < float(c.hu[inside].median()) < 25
    c = canvas()
    before = c.hu.clone()
    assert any(lookalikes.ascites(c) for _ in range(9))
    assert float(c.hu[c.hu - before > 60].median()) < 20


def test_a_collapsed_loop_keeps_its_fat_clean() -> None:
    c = canvas()
    before = c.hu.clone()
    assert any(incidental.collapsed(c) for _ in range(20))
    changed = c.scene.labels[(c.hu - before).abs() > 1]
    assert not bool((changed == int(Tissue.FAT)).any())


def test_metal_and_stones_are_brighter_than_contrast() -> None:
    for add in (incidental.clips, incidental.phleboliths, incidental.granulomas):
        c = canvas()
        before = c.hu.clone()
        assert add(c)
        assert float((c.hu - before).max()) > 100
