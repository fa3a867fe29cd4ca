"""What is measured on a finished bundle comes into its metrics, cutoffs and card."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from triage.decision.table import CutoffTable
from triage.nets.bundle import CARD, BundleError, find_bundle, read_manifest, verify
from triage.training.amend import METRICS, amend, main, with_margins
from triage.types import Target

PLACE = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 10}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(find_bundle("reference"), tmp_path / "own")


def _agreement(margin: float) -> dict[str, Any]:
    row = {"patients": 200, "largest": 0.0031, "p99": 0.002, "mean": 0.0002,
           "verdicts_changed": 2, "changed_outside_margin": 0, "engine_margin": margin}  # fmt: skip
    return {"engine": "rounded bf16", "reference": "openvino f32", "targets": {"liver": row}}


def _saliency() -> dict[str, Any]:
    method = {"hit": PLACE, "hit_true_positives": PLACE, "inside": 0.6, "lift_body": 31.0,
              "lift": 4.0, "seconds": 0.2}  # fmt: skip
    one = {"aim": 0.8, "positives": 10, "true_positives": 8, "chance": 0.1, "chance_body": 0.01,
           "centre": 0.3, "methods": {"map": method}, "key_slice": PLACE, "key_slice_all": PLACE,
           "key_slice_chance": 0.4, "deletion": PLACE,
           "similarity": {"patients": 3, "mean": 0.42, "largest": 0.47}}  # fmt: skip
    return {"patients": 187, "targets": {"liver": one}, "all": {}}


def test_a_margin_lowers_rule_out_and_nothing_else(bundle: Path) -> None:
    before, table = read_manifest(bundle), CutoffTable.from_bundle(bundle)
    amend(bundle, "9.9.9", agreement=_agreement(0.25))
    after, new = read_manifest(bundle), CutoffTable.from_bundle(bundle)
    verify(bundle, after)
    assert after.version == "9.9.9"
    changed = {p for p in after.files if after.files[p] != before.files[p]}
    assert changed == {"cutoffs.json", CARD, METRICS}
    old = table.targets[Target.LIVER].rule_out.cutoff
    lowered = new.targets[Target.LIVER].applied_rule_out.cutoff
    assert new.targets[Target.LIVER].rule_out == table.targets[Target.LIVER].rule_out
    assert math.log(old / (1 - old)) - math.log(lowered / (1 - lowered)) == pytest.approx(0.25)
    assert new.targets[Target.SPLEEN] == table.targets[Target.SPLEEN]
    metrics = json.loads((bundle / METRICS).read_text())
    assert metrics["cutoffs"] == new.to_dict()
    card = (bundle / CARD).read_text()
    assert "| liver | 200 | 0.0031 | 0.0020 | 2, 0 | 0.250 |" in card and f"{lowered:.4g}" in card


def test_a_few_patients_never_lower_the_margin_of_many(bundle: Path) -> None:
    table = CutoffTable.from_bundle(bundle)
    amend(bundle, "9.9.8", agreement=_agreement(0.5))
    many = CutoffTable.from_bundle(bundle)
    few = with_margins(table, _agreement(0.001), many).targets[Target.LIVER]
    assert few.engine_margin == 0.5
    assert with_margins(table, _agreement(0.7), many).targets[Target.LIVER].engine_margin == 0.7
    other = shutil.copytree(find_bundle("reference"), bundle.with_name("other"))
    amend(other, "9.9.9", agreement=_agreement(0.001), least=bundle)
    card = (other / CARD).read_text()
    assert "Margins are at least those of bundle 9.9.8" in card and "| 2, 0 | 0.500 |" in card


def test_measurements_come_one_after_the_other(bundle: Path, tmp_path: Path) -> None:
    for name, found in (("agreement", _agreement(0.1)), ("saliency", _saliency())):
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
        main([str(bundle), "--version", "9.9.9", f"--{name}", str(tmp_path / f"{name}.json")])
    card = (bundle / CARD).read_text()
    assert "## Engines" in card and "187 injured simulated patients" in card
    assert "| liver | map | 10 | 0.80 (0.70-0.90, n 10) |" in card


def test_real_cts_are_a_table_for_each_bundle_that_was_asked(bundle: Path, tmp_path: Path) -> None:
    finding = {"verdict": "not_suspected", "score": 0.0123, "reason": None}
    cut = {"verdict": "not_assessed", "score": None, "reason": "ORGAN_NOT_COVERED"}
    for number, trained in enumerate((True, None)):
        row = {"ct": "trunk", "bundle": f"own {number}", "trained_on": trained, "reason": None,
               "targets": {t.value: finding for t in Target} | {"liver": cut},
               "dice": {"liver": 0.914}}  # fmt: skip
        refused = {**row, "ct": "head", "reason": "NOT_ABDOMEN", "targets": {}, "dice": {}}
        (tmp_path / f"{number}.json").write_text(json.dumps([row, refused]))
    files = [str(tmp_path / f"{n}.json") for n in (0, 1)]
    main([str(bundle), "--version", "9.9.9", "--real-ct", *files])
    card = (bundle / CARD).read_text()
    ours = card[card.index("## Real CTs") :]
    assert ours.index("### By own 0") < ours.index("| trunk | yes |")
    assert ours.index("### By own 1") < ours.index("| trunk | unknown |")
    assert "not suspected 0.012 |" in ours and "not assessed (ORGAN_NOT_COVERED)" in ours
    assert "| head | unknown | not analysed (NOT_ABDOMEN)" in ours and "liver 0.91 |" in ours


def test_a_damaged_bundle_is_left_alone(bundle: Path) -> None:
    (bundle / METRICS).write_text("{}")
    with pytest.raises(BundleError):
        amend(bundle, "9.9.9", agreement=_agreement(0.1))
    assert read_manifest(bundle).version != "9.9.9"
