"""The report on explanations: rows that survive a kill, and what the table says of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from triage.inference.networks import load_networks
from triage.nets.bundle import find_bundle
from triage.training.evaluation import pointing, pointing_table
from triage.types import Target


def _row(patient: str, *, hit: bool, true: bool, **more: Any) -> pointing.Row:
    said = {"hit": hit, "hit_strict": False, "share": 0.5 * hit, "seconds": 0.1, "speaks": hit}
    return {
        "patient": patient,
        "target": "liver",
        "true_positive": true,
        "reached": True,
        "chance": 0.05,
        "chance_body": 0.01,
        "centre": 0.2,
        "methods": {"map": said},
        "key_slice": {"any": hit, "first": False, "chance": 0.3},
        **more,
    }


ROWS = [
    _row("a", hit=True, true=True, deletion={"top": 1.0, "random": 0.2}, similarity=0.1),
    _row("b", hit=True, true=True, deletion={"top": 0.1, "random": 0.2}, similarity=0.3),
    _row("c", hit=False, true=False),
]


def test_figures_of_a_target() -> None:
    liver = pointing_table.summary(ROWS)["targets"]["liver"]
    found = liver["methods"]["map"]
    assert found["hit"]["value"] == pytest.approx(2 / 3)
    assert found["hit_true_positives"]["value"] == 1.0
    assert found["lift"] == pytest.approx((1 / 3) / 0.05)
    assert found["lift_body"] == pytest.approx((1 / 3) / 0.01)
    assert liver["deletion"] == {**liver["deletion"], "n": 2, "value": 0.5}
    alike = {"patients": 2, "mean": pytest.approx(0.2), "largest": 0.3, "shown_mean": None}
    assert liver["similarity"] == alike
    assert liver["key_slice"]["n"] == 2 and liver["key_slice_all"]["n"] == 3


def test_the_table_names_aims_and_chance() -> None:
    text = pointing_table.markdown(pointing_table.summary(ROWS), "Bundle 1.")
    assert text.startswith("Bundle 1.")
    assert "| liver | chance | 3 | 0.050 |" in text
    assert "| liver | centre of the organ | 3 | 0.20 |" in text
    assert "0.67 (0.80)" in text
    nobody = pointing_table.summary([{"patient": "z", "done": True}])
    assert nobody == {"targets": {}, "all": {}}


def test_rows_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    assert pointing.read_rows(path) == []
    pointing.append_rows(path, ROWS[:2])
    with path.open("a") as file:
        file.write('{"patient": "c", "tar')
    assert pointing.read_rows(path) == ROWS[:2]


def test_shuffled_weights_are_the_same_numbers_elsewhere() -> None:
    nets = load_networks(find_bundle("reference"), "cpu")
    other = pointing.shuffled(nets)
    for mine, theirs in (
        (nets.slices.trunk, other.slices.trunk),
        (nets.volume, other.volume),
    ):
        one, two = (torch.cat([p.flatten() for p in n.parameters()]) for n in (mine, theirs))
        assert not torch.equal(one, two)
        assert torch.allclose(one.sort().values, two.sort().values)
    assert other.localiser is nets.localiser and other.programs is not nets.programs


def test_positives_are_labelled_injuries() -> None:
    grades = {Target.LIVER: 2, Target.SPLEEN: 0, Target.BOWEL: 1}
    entry = SimpleNamespace(labelled=lambda t: t in grades and t is not Target.BOWEL,
                            grade=lambda t: grades[t])  # fmt: skip
    assert pointing.positives(entry) == [Target.LIVER]  # type: ignore[arg-type]
