"""Injuries: where they lie, how they look, and that nothing unseen gets a label."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from scipy.ndimage import distance_transform_edt

from tests.simulate.bodies import FAT_MM, canvas
from triage.simulate import abdomen, fluid, solid
from triage.simulate.canvas import Canvas
from triage.simulate.injuries import injure
from triage.simulate.plan import Case
from triage.simulate.ranges import Ranges
from triage.simulate.spaces import peritoneal_fat
from triage.simulate.tissues import Tissue
from triage.types import Phase, Target

CASES = [
    ("liver", 1),
    ("liver", 2),
    ("spleen", 1),
    ("spleen", 2),
    ("kidney", 1),
    ("kidney", 2),
    ("bowel", 1),
    ("extravasation", 1),
]


def done(c: Canvas, attempt: Any, *args: Any) -> dict[str, Any]:
    """The truth of an injury that found room within 20 attempts."""
    assert any(attempt(c, *args) for _ in range(20))
    return c.lesions[-1]


@pytest.mark.parametrize(("name", "grade"), CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_asked_for_is_there_and_can_be_seen(name: str, grade: int, seed: int) -> None:
    c = canvas(seed=seed)
    before = c.hu.clone()
    target = Target(name)
    assert injure(c, Case(**{name: grade}))[target] == grade
    assert set(c.masks) == {target}
    assert bool((c.hu != before)[c.masks[target]].all())
    if target is Target.EXTRAVASATION:  # nothing that comes later covers it
        assert float(c.hu[c.masks[target]].mean()) > 85
    for lesion in (i for i in c.lesions if i["target"]):
        assert lesion["target"] == name and lesion["grade"] == grade
        assert abs(lesion["contrast_hu"]) >= c.ranges["visible.contrast_hu"].low
        assert lesion["ml"] > 0 and 0 < lesion["diameter_mm"] < 400


@pytest.mark.parametrize("organ", ["liver", "spleen", "kidney_left"])
def test_a_laceration_is_dark_and_reaches_the_capsule(organ: str) -> None:
    c = canvas()
    target = Target(organ.split("_", maxsplit=1)[0])
    lesion = done(c, solid.laceration, organ, target, 2)
    box, inside, depth = c.organ(organ) or pytest.fail("no organ")
    mask = c.masks[target][box]
    assert int(mask.sum()) == int(c.masks[target].sum())  # nowhere else
    assert bool(inside[mask].all())
    assert float(depth[mask].min()) < 4
    assert lesion["contrast_hu"] < 0


@pytest.mark.parametrize("seed", range(4))
def test_perirenal_blood_stays_in_the_fat_inside_the_wall(seed: int) -> None:
    c = canvas(seed=seed)
    before = c.hu.clone()
    side = ("right", "left")[seed % 2]
    lesion = done(c, solid.perirenal, f"kidney_{side}", 2)
    changed = c.hu != before
    assert bool((c.scene.labels[changed] == int(Tissue.FAT)).all())
    to_air = distance_transform_edt(
        (c.scene.labels != int(Tissue.AIR)).numpy(), c.scene.grid.spacing
    )
    assert to_air[changed.numpy()].min() > FAT_MM
    x = c.scene.grid.axis(0)[c.masks[Target.KIDNEY].nonzero()[:, 0]]
    assert bool((x > c.middle).all() if side == "right" else (x < c.middle).all())
    assert lesion["side"] == side and lesion["contrast_hu"] > 50


def test_free_air_lies_in_front() -> None:
    c = canvas()
    lesion = done(c, abdomen.free_air)
    y = c.scene.grid.axis(1)
    gas, fat = (y[m.nonzero()[:, 1]] for m in (c.masks[Target.BOWEL], c.inner_fat))
    assert float(gas.min()) > float(fat.median())
    assert float(gas.mean()) > float(
        fat.quantile(0.9) if len(fat) < 1e6 else fat[::9].quantile(0.9)
    )
    assert float(c.hu[c.masks[Target.BOWEL]].mean()) < -500 and lesion["contrast_hu"] < -300


def test_free_blood_lies_behind_and_is_no_water() -> None:
    c = canvas()
    before = c.hu.clone()
    assert fluid.free_fluid(c, 0.3, 40.0, "haemoperitoneum")
    blood = c.hu - before > 60
    cavity = peritoneal_fat(c.scene, c.inner_fat)
    assert bool(cavity[blood].all())
    y = c.scene.grid.axis(1)
    assert y[blood.nonzero()[:, 1]].mean() < y[cavity.nonzero()[:, 1]].mean()
    assert 30 < float(c.hu[blood].median()) < 50
    assert not c.masks  # it belongs to no target


@pytest.mark.parametrize("phase", [Phase.ARTERIAL, Phase.PORTAL_VENOUS, Phase.DELAYED])
def test_a_blush_lies_in_blood_and_widens_the_mask_of_its_organ(phase: Phase) -> None:
    c = canvas(phase=phase)
    injure(c, Case(spleen=2, extravasation=1))
    lesion = next(i for i in c.lesions if i["kind"] == "blush")
    assert lesion["contrast_hu"] > 12
    level = float(c.hu[c.masks[Target.EXTRAVASATION]].mean())
    assert 60 <= level <= 370
    assert level > 0.5 * c.table[Tissue.AORTA]


def test_bleeding_without_another_injury_spares_the_organs() -> None:
    c = canvas()
    before = c.hu.clone()
    assert injure(c, Case(extravasation=1))[Target.EXTRAVASATION]
    change = (c.hu - before).abs() > 20
    organs = [Tissue.LIVER, Tissue.SPLEEN, Tissue.CORTEX_LEFT, Tissue.CORTEX_RIGHT]
    assert not bool(torch.isin(c.scene.labels[change], torch.tensor(organs).to(torch.uint8)).any())


def test_a_thick_wall_surrounds_the_lumen() -> None:
    contrasts = []
    for seed in range(3):
        c = canvas(3, seed=seed)  # drank no contrast: a thick wall is brighter than the lumen
        for _ in range(20):
            wall = (c.scene.labels == int(Tissue.BOWEL_WALL)).nonzero()
            where = c.scene.grid.world(wall[c.dice.integer(0, len(wall) - 1)].tolist())
            if abdomen.bowel_wall(c, where):
                break
        lesion = c.lesions[-1]
        assert lesion["kind"] == "wall_thickening" and lesion["ml"] > 1
        contrasts.append(lesion["contrast_hu"])
    assert min(contrasts) > 0


def test_high_grade_is_larger_than_low_grade() -> None:
    for name in ("liver", "spleen", "kidney"):
        ml = []
        for grade in (1, 2):
            masks = []
            for seed in range(2):
                c = canvas(seed=seed)
                injure(c, Case(**{name: grade}))
                masks.append(float(c.masks[Target(name)].sum()))
            ml.append(sum(masks))
        assert ml[1] > 2 * ml[0], name


def test_a_change_that_nobody_would_see_gets_no_label() -> None:
    c = canvas()
    before = c.hu.clone()
    box, organ, _ = c.organ("liver") or pytest.fail("no liver")
    for rise, share in ((5.0, organ.float()), (80.0, torch.zeros(organ.shape))):
        edit = c.edit(box)
        edit.blend(share, edit.before + rise)
        assert not c.finish(edit, organ, Target.LIVER, "haematoma", 1, organ="liver")
    assert torch.equal(c.hu, before) and not c.masks and not c.lesions


def test_same_seed_same_injuries() -> None:
    one, two, other = (canvas(seed=s) for s in (4, 4, 5))
    for c in (one, two, other):
        injure(c, Case(liver=2, bowel=1))
    assert torch.equal(one.hu, two.hu) and one.lesions == two.lesions
    assert not torch.equal(one.hu, other.hu)


def test_ranges_go_through_json_and_are_strict() -> None:
    data = json.loads(json.dumps(Ranges().to_dict()))
    assert Ranges.from_dict(data) == Ranges()
    key = "laceration.depth_mm.liver.low"
    for broken in (
        {k: v for k, v in data.items() if k != key},
        {**data, "no.such_key": data[key]},
        {**data, key: {**data[key], "low": 99.0}},
        {**data, key: {**data[key], "unit": "HU"}},
        {**data, key: {**data[key], "low": "12"}},
        {**data, key: {**data[key], "low": float("nan")}},
        {**data, key: {"low": 1, "high": 2}},
    ):
        with pytest.raises(ValueError, match=r"missing|unknown|expected"):
            Ranges.from_dict(broken)


def test_injuries_follow_the_ranges_they_are_given() -> None:
    data = Ranges().to_dict()
    for key in ("blood.unclotted_hu", "blood.clotted_hu"):
        data[key] |= {"low": 0.0, "high": 1.0}
    c = canvas()
    c.ranges = Ranges.from_dict(data)
    done(c, solid.haematoma, "liver", Target.LIVER, 2)
    assert float(c.hu[c.masks[Target.LIVER]].quantile(0.2)) < 25
