"""metrics.json, plots and page of one table of scores."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triage.decision.fit import fit_table
from triage.decision.fusion import Fusion
from triage.decision.score_cutoffs import fit_score_cutoffs
from triage.decision.scores import ScoreTable, from_rows
from triage.decision.table import CutoffTable
from triage.training.evaluation.judged import (
    SLICES_ONLY,
    VOLUMES,
    judge_scores,
    judge_with_bundle,
)
from triage.training.evaluation.measure import measure
from triage.training.evaluation.page import page
from triage.training.evaluation.prevalence import natural
from triage.training.evaluation.write import write_evaluation
from triage.types import DISCLAIMER, TARGETS, Target


def rows(patients: int, seed: int, prefix: str = "p", volume: bool = True) -> list[dict[str, Any]]:
    """Simulated scores with every column; larger lesions score higher."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(patients):
        for target in TARGETS:
            label = int(rng.random() < 0.35)
            size = float(rng.uniform(5, 60)) * label
            signal = size / 25
            row: dict[str, Any] = {
                "patient_id": f"{prefix}{i}",
                "person": f"{prefix}{i // 2}",
                "target": target.value,
                "label": label,
                "grade": label * (1 + (size > 40)),
                "ensemble": rng.normal() + signal - 1,
                "volume": rng.normal() + signal if volume else None,
                "mean": rng.normal() * 2 + signal,
                "lesion_mm": size if label else None,
                "contrast_hu": -size if label else None,
                "assessed": int(rng.random() < 0.97),
            }
            out.append(row)
    return out


@pytest.fixture(scope="module")
def cutoffs() -> CutoffTable:
    return fit_table(from_rows(rows(150, 1, "c")), calibrated_on="simulated").cutoffs


@pytest.fixture(scope="module")
def table() -> ScoreTable:
    return from_rows(rows(120, 2))


def test_every_figure_is_there_with_its_interval(table: ScoreTable, cutoffs: CutoffTable) -> None:
    metrics = measure(judge_with_bundle(table, cutoffs))
    json.dumps(metrics, allow_nan=False)
    assert metrics["data"]["input"] == VOLUMES and metrics["data"]["persons"] == 60
    for target in TARGETS:
        found = metrics["targets"][target.value]
        assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]
        assert found["patients"] + found["not_assessed"]["patients"] == 120
        for name in ("rule_out", "rule_in", "zero_fn"):
            for rate in ("sensitivity", "specificity", "accuracy"):
                value = found[name][rate]
                assert value["low"] <= value["value"] <= value["high"]
        assert found["rule_out"]["cutoff"] == cutoffs.targets[target].rule_out.cutoff
        assert found["zero_fn"]["missed"] == 0
        assert 0 < found["brier"] < 0.3 and found["calibration"]["slope"]["value"] > 0
        assert set(found["branches"]) == {"ensemble", "volume", "mean", "fused"}
        assert found["branches"]["fused"]["lead"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert sum(group["positives"] for group in found["lesion_mm"]) == found["positives"]
        assert found["contrast_hu"] and not found["lesion_ml"]
    liver = metrics["targets"]["liver"]
    assert liver["grades"]["high"]["auc"]["value"] > liver["grades"]["low"]["auc"]["value"]
    assert liver["lesion_mm"][0]["auc"]["value"] < liver["lesion_mm"][-1]["auc"]["value"]
    assert not metrics["targets"]["bowel"]["grades"]
    assert metrics["any_injury"]["auc"]["value"] > 0.5
    rsna = metrics["rsna"]
    assert rsna["score"] > 0 and rsna["grades"] == "natural share of high grades"


def test_natural_prevalence_moves_what_depends_on_it_and_nothing_else(
    table: ScoreTable, cutoffs: CutoffTable
) -> None:
    judged = judge_with_bundle(table, cutoffs)
    plain, natural_ = measure(judged), measure(judged, natural())
    one, other = plain["targets"]["bowel"], natural_["targets"]["bowel"]
    assert one["auc"] == other["auc"]
    assert one["rule_in"]["sensitivity"] == other["rule_in"]["sensitivity"]
    assert other["rule_in"]["accuracy"]["value"] > one["rule_in"]["accuracy"]["value"]
    assert other["brier"] != one["brier"]
    assert other["decision_curve"]["all"][0] < one["decision_curve"]["all"][0]


def test_single_images_are_judged_by_the_2d_branch_alone(cutoffs: CutoffTable) -> None:
    judged = judge_with_bundle(from_rows(rows(60, 3, volume=False)), cutoffs)
    metrics = measure(judged)
    assert metrics["data"]["input"] == SLICES_ONLY and "do not apply" in metrics["data"]["notes"][0]
    liver = metrics["targets"]["liver"]
    assert liver["auc"]["value"] > 0.5 and liver["zero_fn"]["missed"] == 0
    assert liver["rule_out"] is None and liver["rule_in"] is None and liver["brier"] is None
    assert metrics["rsna"]["score"] is None and metrics["rsna"]["reason"]
    assert SLICES_ONLY in page(metrics, {})


def test_a_target_that_single_images_trained_keeps_its_cutoffs_on_them(
    cutoffs: CutoffTable,
) -> None:
    own = replace(cutoffs.targets[Target.LIVER], fusion=None)
    mixed = replace(cutoffs, targets={**cutoffs.targets, Target.LIVER: own})
    metrics = measure(judge_with_bundle(from_rows(rows(60, 3, volume=False)), mixed))
    liver, spleen = (metrics["targets"][name] for name in ("liver", "spleen"))
    assert liver["rule_out"]["cutoff"] == own.rule_out.cutoff and liver["brier"] is not None
    assert spleen["rule_out"] is None and spleen["brier"] is None
    assert metrics["any_injury"]["auc"]["value"] is None and metrics["joint"] is None
    note = metrics["data"]["notes"][0]
    assert "spleen" in note and "liver" not in note


def test_a_branch_that_did_not_answer_is_never_a_low_score(cutoffs: CutoffTable) -> None:
    some = rows(60, 4)
    for row in some[:5]:
        row["volume"], row["assessed"] = None, 1
    judged = judge_with_bundle(from_rows(some), cutoffs)
    assert np.isnan(judged.scores[0]).all() and "lack a branch" in judged.notes[0]
    assert cutoffs.targets[Target.LIVER].fusion == Fusion(0.5, 0.5)


def test_scores_alone_are_ranked_and_meet_cutoffs_of_their_own_scale() -> None:
    some = [{**r, "score": r["ensemble"], "ensemble": None, "volume": None} for r in rows(90, 5)]
    table = from_rows(some)
    bare = measure(judge_scores(table))
    assert bare["targets"]["spleen"]["rule_out"] is None
    assert bare["targets"]["spleen"]["calibration"] is None  # logits: no probabilities
    own = fit_score_cutoffs(table, calibrated_on="simulated").to_dict()
    metrics = measure(judge_scores(table, own))
    for name, found in metrics["targets"].items():
        assert found["rule_out"]["cutoff"] == own["targets"][name]["rule_out"]["cutoff"]
        assert found["rule_out"]["missed"] == 0
        assert found["auc"] == bare["targets"][name]["auc"]
    assert metrics["joint"]["specificity"]["value"] == pytest.approx(
        own["joint_specificity"], abs=1e-6
    )


def test_a_single_class_leaves_a_gap_and_no_error() -> None:
    some = [{**r, "label": 0, "grade": 0} for r in rows(20, 6)]
    metrics = measure(judge_scores(from_rows(some)))
    found = metrics["targets"]["liver"]
    assert found["auc"] == {"value": None, "low": None, "high": None} and found["zero_fn"] is None
    page(metrics, {})


class Outside(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "object", "form", "a"):
            self.found.append(tag)
        self.found += [
            f"{k}={v}"[:60]
            for k, v in attrs
            if k in ("src", "href", "srcset") and not str(v).startswith("data:image/png;base64,")
        ]
        self.found += [k for k, _ in attrs if k.startswith("on")]


def test_the_page_stands_alone_and_trusts_no_text(
    tmp_path: Path, table: ScoreTable, cutoffs: CutoffTable
) -> None:
    evil = "<script>alert(1)</script>"
    bundle = {"name": evil, "version": "1", "sha256": "0" * 64, "calibrated_on": "simulated"}
    metrics = write_evaluation(
        tmp_path, judge_with_bundle(table, cutoffs), None, {"bundle": bundle}
    )
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    parser = Outside()
    parser.feed(text)
    assert not parser.found and evil not in text and "alert(1)" in text
    assert not re.search(r"https?://|url\(|@import", text)
    assert text.count(DISCLAIMER) >= 2 and text.count("data:image/png") == 15
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {
        f"{kind}_{t.value}.png" for kind in ("roc", "calibration", "decision") for t in TARGETS
    }


def test_weights_of_patients_count_where_probabilities_are_judged(
    table: ScoreTable, cutoffs: CutoffTable
) -> None:
    weights = np.where(table.injured == 1, 0.2, 2.0)
    plain, weighed = (
        measure(judge_with_bundle(t, cutoffs)) for t in (table, replace(table, weights=weights))
    )
    assert not plain["data"]["weighted"] and weighed["data"]["weighted"]
    said = "<th>AUC, weighted</th>"
    assert said in page(weighed, {}) and said not in page(plain, {})
    for name in plain["targets"]:
        one, other = plain["targets"][name], weighed["targets"][name]
        assert one["auc"] == other["auc"] and one["rule_in"] == other["rule_in"]
        assert one["auc_weighted"] is None
        assert abs(other["auc_weighted"]["value"] - one["auc"]["value"]) > 1e-4
        ratio = [m["calibration"]["observed_over_expected"] for m in (one, other)]
        assert ratio[1] < ratio[0]
    twice = measure(judge_with_bundle(replace(table, weights=2 * weights), cutoffs))
    assert twice["targets"] == weighed["targets"]  # of any unit
