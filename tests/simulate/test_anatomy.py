"""Parametric people: the organs are there, where they belong, and of a plausible size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from triage.simulate.anatomy import parametric
from triage.simulate.contrast import render
from triage.simulate.fields import Dice, Grid, blur, finer, resize, smooth_noise
from triage.simulate.scene import Person, Scene, draw_grid
from triage.simulate.tissues import Tissue
from triage.simulate.tubes import _paint_dense, paint_tube
from triage.simulate.vessels import grow
from triage.types import Phase

SPACING = (3.0, 3.0, 4.0)

# Usual volumes in ml, wide: people differ.
VOLUMES = {
    (Tissue.LIVER,): (700, 2800),
    (Tissue.SPLEEN,): (50, 600),
    (Tissue.CORTEX_RIGHT, Tissue.MEDULLA_RIGHT): (70, 300),
    (Tissue.CORTEX_LEFT, Tissue.MEDULLA_LEFT): (70, 300),
    (Tissue.BOWEL_WALL, Tissue.BOWEL_CONTENT): (150, 2500),
    (Tissue.AORTA,): (40, 250),
}


def person(seed: int) -> Scene:
    dice = Dice(seed)
    who = Person.draw(dice)
    grid = draw_grid(dice, SPACING, who)
    full = round(480 / SPACING[2])  # the whole abdomen, whatever the scan
    grid = Grid((*grid.shape[:2], full), SPACING, (*grid.origin[:2], -235.0))
    return parametric(grid, dice, who)


@pytest.fixture(scope="module", params=[1, 2])
def scene(request: pytest.FixtureRequest) -> Scene:
    return person(request.param)


def middle(scene: Scene, *tissues: Tissue) -> np.ndarray:
    mask = sum((scene.labels == int(t) for t in tissues), torch.zeros(scene.labels.shape))
    return scene.grid.world(mask.nonzero().float().mean(0).tolist())


def test_organs_have_plausible_volumes(scene: Scene) -> None:
    for tissues, (low, high) in VOLUMES.items():
        ml = sum(int((scene.labels == int(t)).sum()) for t in tissues) * scene.grid.voxel_ml
        assert low < ml < high, tissues


def test_organs_lie_where_they_belong(scene: Scene) -> None:
    liver, spleen = middle(scene, Tissue.LIVER), middle(scene, Tissue.SPLEEN)
    right, left = middle(scene, Tissue.CORTEX_RIGHT), middle(scene, Tissue.CORTEX_LEFT)
    spine, bladder = middle(scene, Tissue.VERTEBRA), middle(scene, Tissue.BLADDER)
    assert liver[0] > 20 > -20 > spleen[0] and right[0] > 25 > -25 > left[0]
    assert liver[2] > right[2] > bladder[2] and spleen[2] > left[2] > bladder[2]
    assert spine[1] < min(liver[1], bladder[1])


def test_iliac_wings_stay_at_the_sides(scene: Scene) -> None:
    """They neither close to a ring nor reach the front of the abdomen."""
    z = round((-90 - scene.grid.origin[2]) / SPACING[2])
    bone = (scene.labels[:, :, z] == int(Tissue.BONE)).nonzero().float()
    x = bone[:, 0] * SPACING[0] + scene.grid.origin[0]
    y = bone[:, 1] * SPACING[1] + scene.grid.origin[1]
    assert len(bone) and float(x.abs().min()) > 30 and float(y.max()) < 55


@pytest.mark.parametrize("phase", [p for p in Phase if p is not Phase.UNKNOWN])
def test_the_phase_shows(scene: Scene, phase: Phase) -> None:
    view = Scene(scene.grid, scene.labels.clone(), "", detail=scene.detail)
    hu, table = render(view, phase, Dice(3))
    seen = {t: float(hu[scene.labels == int(t)].median()) for t in (Tissue.AORTA, Tissue.LIVER)}
    assert seen[Tissue.AORTA] == pytest.approx(table[Tissue.AORTA], abs=15)
    cortex, medulla = table[Tissue.CORTEX_LEFT], table[Tissue.MEDULLA_LEFT]
    wanted = {
        Phase.PLAIN: seen[Tissue.AORTA] < 80 and abs(cortex - medulla) < 40,
        Phase.ARTERIAL: seen[Tissue.AORTA] > 200 and cortex > medulla + 40,
        Phase.PORTAL_VENOUS: 100 < seen[Tissue.AORTA] < 240,
        Phase.DELAYED: seen[Tissue.AORTA] < 180 and table[Tissue.URINE] > 50,
    }
    assert wanted[phase]


def test_the_same_seed_gives_the_same_person() -> None:
    one, two = person(4), person(4)
    assert torch.equal(one.labels, two.labels)
    assert one.detail is not None and two.detail is not None
    assert torch.equal(one.detail, two.detail)


def test_most_scans_show_the_whole_abdomen() -> None:
    ends = []
    for seed in range(100):
        dice = Dice(seed)
        who = Person.draw(dice)
        grid = draw_grid(dice, (6.0, 6.0, 6.0), who)
        top = grid.origin[2] + 6.0 * grid.shape[2]
        ends.append(grid.origin[2] < -190 * who.stretch and top > 195 * who.stretch)
    assert 0.75 < np.mean(ends) < 1


def test_smooth_noise_and_blur() -> None:
    noise = smooth_noise(Dice(1), (60, 50, 40), (2.0, 2.0, 3.0), 25)
    assert float(noise.mean()) == pytest.approx(0, abs=0.1)
    assert float(noise.std()) == pytest.approx(1, abs=0.1)
    flat = torch.full((9, 8, 7), 3.0)
    assert torch.allclose(blur(flat, (1.0, 1.0, 1.0), 2.0), flat, atol=1e-4)
    ramp = torch.arange(12.0)[:, None, None].expand(12, 8, 8)
    assert torch.allclose(finer(ramp[::3], (3, 1, 1), (12, 8, 8))[:10], ramp[:10], atol=1e-4)
    wanted = torch.nn.functional.interpolate(noise[None, None], size=(31, 72, 40), mode="trilinear")
    assert torch.allclose(resize(noise, (31, 72, 40)), wanted[0, 0], atol=1e-4)


def test_tubes_are_the_same_on_every_device() -> None:
    grid = Grid((30, 30, 30), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    path = np.linspace([5.0, 5, 5], [22.0, 18, 24], 40)
    radii = np.linspace(4, 2, 40)
    small, dense = torch.full(grid.shape, 1e3), torch.full(grid.shape, 1e3)
    paint_tube(small, grid, path, radii)
    _paint_dense(dense, grid, path, radii, 3.0)
    assert torch.allclose(small.clamp(max=0), dense.clamp(max=0), atol=1e-3)
    assert bool((small < 0).any())


def test_vessels_grow_thinner_and_reach_their_ends() -> None:
    ends = Dice(2).rng.normal(0, 40, (30, 3))
    paths = grow(np.zeros((1, 3)), ends, Dice(3))
    tips = np.array([path[-1, :3] for path in paths])
    for end in ends:
        assert np.linalg.norm(np.vstack([p[:, :3] for p in paths]) - end, axis=1).min() < 1e-6
    assert len(tips) <= 30 and max(p[:, 3].max() for p in paths) == pytest.approx(1, abs=0.1)
    assert all(p[-1, 3] <= p[1, 3] + 1e-9 for p in paths)
