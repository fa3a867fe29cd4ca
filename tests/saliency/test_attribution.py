"""An attribution lies where the network looked, with its sign."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from triage.inference.crops import VIEWS, Region
from triage.inference.localise import describe
from triage.inference.score import Evidence, Looked
from triage.saliency.attribution import AGAINST, LEAST, SUSPECTED, Places, place_logits, signed
from triage.saliency.explain import APART_MM, key_slices
from triage.types import ORGAN_LABEL, Anatomy, Organ, Series, Target, Volume

AFFINE = torch.from_numpy(np.diag([1.5, 1.5, 3.0, 1.0]))
SHAPE = (160, 140, 20)


def _patient() -> Anatomy:
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    labels[60:140, 30:110, 2:18] = ORGAN_LABEL[Organ.LIVER]
    return describe(labels, AFFINE)


def _evidence(spot: float, rest: float = 0.0) -> Evidence:
    """One place of one slice says `spot`, the others `rest`."""
    maps = torch.full((2, 8, 7, 7), rest)
    maps[:, 3, 2, 1] = spot  # slice 8: towards the front, on the patient's right
    view, where = VIEWS[Target.LIVER][0], Region((100.0, 70.0), 2, 18)
    judged = list(range(2, 18, 2))
    logits = torch.zeros(2, 8)
    looked = Looked(view, where, judged, torch.zeros(8, 1, 7, 7), logits, maps=maps)
    return Evidence({Target.LIVER: [looked]})


def _places(evidence: Evidence, weights: tuple[float, float] = (1.0, 0.0)) -> Places:
    found = place_logits(None, evidence, _patient(), Target.LIVER, weights)  # type: ignore[arg-type]
    assert found is not None
    return found


def _explained(spot: float, rest: float = 0.0, *, speaks_for: float = 0.0) -> torch.Tensor:
    field = signed(_places(_evidence(spot, rest)), _patient(), speaks_for=speaks_for)
    return field.as_tensor()[0]


def test_the_map_is_hot_where_the_feature_was() -> None:
    field = _explained(+3.0)
    x, y, z = np.unravel_index(int(field.argmax()), field.shape)
    cell = VIEWS[Target.LIVER][0].field_mm / 7 / 1.5  # voxels
    assert z == 8
    assert abs(x - (100 + 2 * cell)) < cell
    assert abs(y - (70 + 1 * cell)) < cell
    assert float(field.max()) == 1.0
    assert float(field.min()) >= 0.0


def test_what_speaks_against_is_negative() -> None:
    field = _explained(-3.0)
    assert -AGAINST <= float(field.min()) < -0.9 * AGAINST
    assert float(field.max()) <= 0.0


def test_healthy_tissue_does_not_drown_the_finding() -> None:
    field = _explained(+4.0, -7.0)
    assert float(field.max()) == 1.0
    assert float(field.min()) == pytest.approx(-AGAINST, abs=0.01)


def test_a_suspected_target_has_places_that_speak_for_it() -> None:
    """Though each branch alone stayed below, and nothing else changes its order."""
    quiet, said = _explained(-2.0, -5.0), _explained(-2.0, -5.0, speaks_for=SUSPECTED)
    assert float(quiet.max()) <= 0 < float(said.max())
    assert float(said.max()) == pytest.approx(LEAST)
    places = _places(_evidence(-2.0, -5.0))
    logits = places.logits.masked_fill(~places.near, -30.0)
    assert torch.equal(said[places.box] == said.max(), logits == logits.max())


@pytest.mark.parametrize(("speaks_for", "red"), [(0.4, 0.4), (3.0, LEAST), (0.0, 0.0), (-1.0, 0.0)])
def test_a_score_above_prevalence_has_places_as_red_as_it_speaks(
    speaks_for: float, red: float
) -> None:
    field = _explained(-2.0, -5.0, speaks_for=speaks_for)
    assert max(float(field.max()), 0.0) == pytest.approx(red)


def test_far_from_the_organ_nothing_is_attributed() -> None:
    assert float(_explained(+1.0)[:40].abs().max()) == 0.0


def test_the_finer_map_answers_alone_where_no_slice_was_judged() -> None:
    evidence = _evidence(-1.0, -1.0)
    lesions = torch.zeros(1, 5, 80, 70, 20)
    lesions[0, 3] = 2.0  # liver
    evidence.volume_lesions = lesions
    evidence.volume_box = (slice(0, 80), slice(0, 70), slice(0, 20))
    places = _places(evidence, (0.5, 0.5))
    middle = places.logits[40, 40]
    assert float(middle[8]) == pytest.approx((0.5 * -1 + 2 * 0.5 * 2) / 1.5, abs=0.02)
    assert float(places.logits[40, 40, 19 - places.box[2].start]) == pytest.approx(2.0, abs=0.02)


def test_key_slices_are_the_strongest_and_apart() -> None:
    places = _places(_evidence(+3.0, -2.0))
    grid = MetaTensor(torch.zeros(1, *SHAPE), affine=AFFINE)
    other = AFFINE.clone()
    other[2, 2], other[2, 3] = 1.5, -3.0  # thinner slices that begin lower
    thin = Volume(MetaTensor(torch.zeros(1, 4, 4, 60), affine=other), (), Series("1", "2", ()))
    keys = key_slices(places, grid, thin)
    assert keys[0].index == round((8 * 3.0 + 3.0) / 1.5)
    assert keys[0].score == max(k.score for k in keys) and 0.5 < keys[0].score < 1
    places_mm = [1.5 * k.index for k in keys]
    apart = [abs(a - b) for i, a in enumerate(places_mm) for b in places_mm[:i]]
    assert len(keys) == 3 and min(apart) >= APART_MM
    assert key_slices(None, grid, thin) == ()
