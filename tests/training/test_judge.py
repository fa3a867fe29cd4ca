"""Out-of-fold scores: what the members saw is kept as it was, and heads answer where they won."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor

from triage.inference.crops import VIEWS, Region
from triage.inference.score import Evidence, Looked, heights, pool_slices
from triage.nets.sequence_head import SequenceHeads
from triage.training.cache import Entry
from triage.training.cases import Case, Row, Seen
from triage.training.checkpoint import save
from triage.training.judge import _collect, _studies, with_heads
from triage.training.sequence import Compared, merged
from triage.training.studies import Study
from triage.types import Phase, Scope, Target

LIVER, SPLEEN = Target.LIVER, Target.SPLEEN
CHANNELS = 5


def looked(slices: int) -> Looked:
    torch.manual_seed(slices)
    features = torch.randn(slices, CHANNELS, 2, 2)
    where = Region((1.0, 1.0), 0, slices)
    logits = torch.randn(3, slices)
    return Looked(VIEWS[LIVER][0], where, list(range(slices)), features, logits)


def case(grades: dict[Target, int], images: bool = False) -> Case:
    affine = torch.diag(torch.tensor([1.5, 1.5, 3.0, 1.0], dtype=torch.float64))
    grid = MetaTensor(torch.zeros(1, 4, 4, 9), affine=affine)
    return Case("7", "somebody", "70", grades, grid, images, Phase.PORTAL_VENOUS)


def test_what_the_held_out_member_saw_is_kept(tmp_path: Path) -> None:
    own, view = case({LIVER: 2, SPLEEN: 0}), looked(9)
    seen = Seen(
        Evidence({LIVER: [view], SPLEEN: [looked(8)]}),
        Scope(Phase.PORTAL_VENOUS, None, {SPLEEN: "INCOMPLETE_COVERAGE"}),
    )
    told = _studies(own, seen, [LIVER, SPLEEN], fold=1)
    assert list(told) == ["liver"]  # the spleen could not be judged
    save(tmp_path / "study.pt", told)
    meta = {"patient_id": "7", "series_id": "70", "person": "somebody", "grades": {}}
    studies: dict[Target, list[Study]] = {LIVER: [], SPLEEN: []}
    _collect(Entry(tmp_path, meta), tmp_path / "study.pt", studies)
    assert not studies[SPLEEN]
    (study,) = studies[LIVER]
    assert (study.person, study.label, study.series) == ("somebody", 1, ("7", "70"))
    assert study.views[0].base == pytest.approx(pool_slices(view.logits[1:2]))
    assert own.grid is not None
    z = heights(own.grid, view.slices)
    assert study.views[0].z[0] == z[0] and study.views[0].features.shape[1] == CHANNELS
    assert _studies(case({LIVER: 2}, images=True), seen, [LIVER], fold=1) == {}


def row(patient: str, target: Target) -> Row:
    return {
        "patient_id": patient,
        "series_id": "1",
        "target": target.value,
        "score": 0.5,
        "ensemble": 0.5,
        "volume": 9.0,
    }


def test_a_head_answers_out_of_fold_where_it_won() -> None:
    rows = [row("a", LIVER), row("b", LIVER), row("a", SPLEEN)]
    scores = {("a", "1"): -2.0}
    won, lost = Compared(9, 0.9, 0.8, scores), Compared(9, 0.7, 0.8, scores)
    found = with_heads(rows, {LIVER: won, SPLEEN: lost})
    assert [r["ensemble"] for r in found] == [-2.0, 0.5, 0.5]
    assert [r["score"] for r in found] == [-2.0, 0.5, 0.5]
    assert found[0]["sequence"] == -2.0 and found[0]["volume"] == 9.0
    assert rows[0]["score"] == 0.5  # not changed in place
    assert "the head answers" in won.said and "plain pooling answers" in lost.said
    assert "too few" in Compared(3, float("nan"), float("nan")).said


def test_new_heads_stand_beside_those_that_stay() -> None:
    one, other = (SequenceHeads({t.value: CHANNELS}) for t in (LIVER, SPLEEN))
    both = merged(one, None, other)
    assert both is not None and LIVER in both and SPLEEN in both
    for part in (one, other):
        state = both.state_dict()
        assert all(torch.equal(state[k], v) for k, v in part.state_dict().items())
    assert merged(None, None) is None
