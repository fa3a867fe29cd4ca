"""The model card: every figure comes from metrics.json."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.training.test_evaluation import rows
from triage.decision.fit import fit_table
from triage.decision.scores import from_rows
from triage.training.card import PUBLISHED_ACCURACY, PUBLISHED_AUC, model_card
from triage.training.evaluation.judged import judge_with_bundle
from triage.training.evaluation.measure import measure

PROVENANCE = {
    "command": "triage train",
    "data": ["People who were simulated | <b>"],
    "attribution": ["Somebody (CC BY)."],
}


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    fitted = fit_table(from_rows(rows(150, 1, "c")), calibrated_on="simulated")
    measured = measure(judge_with_bundle(from_rows(rows(120, 2)), fitted.cutoffs))
    return {
        **measured,
        "cutoffs": fitted.cutoffs.to_dict(),
        "calibration": {"patients": 150, "healthy": fitted.healthy},
        "localiser_dice": {"liver": 0.93},
        "published_auc": PUBLISHED_AUC,
        "published_accuracy": PUBLISHED_ACCURACY,
        "real": {
            "slices of 41 patients": measure(
                judge_with_bundle(from_rows(rows(41, 3)), fitted.cutoffs)
            )
        },
        "ablations": {"volume net alone": {"liver": {"value": 0.61, "low": 0.5, "high": 0.7}}},
    }


def shown(metrics: dict[str, Any]) -> Iterator[list[Any]]:
    """Paths to the numbers that a card shows."""
    for name in metrics["targets"]:
        place = ["targets", name]
        yield from ([*place, "auc", k] for k in ("value", "low", "high"))
        yield [*place, "positives"]
        yield [*place, "brier"]
        yield [*place, "calibration", "slope", "low"]
        yield [*place, "branches", "volume", "auc", "high"]
        yield [*place, "lesion_mm", 0, "auc", "value"]
        for cutoff in ("rule_out", "rule_in"):
            rates = ("sensitivity", "specificity", "accuracy")
            yield from ([*place, cutoff, rate, "low"] for rate in rates)
        yield [*place, "zero_fn", "accuracy", "high"]
        yield ["cutoffs", "targets", name, "rule_out", "cutoff"]
        yield ["cutoffs", "targets", name, "rule_out", "positives"]
        yield ["cutoffs", "targets", name, "rule_in", "cutoff"]
        yield ["cutoffs", "targets", name, "calibration", "slope"]
        yield ["published_auc", name]
        yield ["published_accuracy", name]
        yield ["real", "slices of 41 patients", "targets", name, "auc", "value"]
    yield ["targets", "liver", "grades", "high", "auc", "value"]
    yield ["calibration", "patients"]
    yield ["localiser_dice", "liver"]
    yield ["data", "patients"]
    yield ["rsna", "score"]
    yield ["any_injury", "auc", "value"]
    yield ["joint", "specificity", "low"]
    yield ["ablations", "volume net alone", "liver", "value"]


def test_a_number_that_changes_there_changes_the_card(metrics: dict[str, Any]) -> None:
    card = model_card("x", "1", metrics, PROVENANCE)
    for path in shown(metrics):
        changed = copy.deepcopy(metrics)
        place: Any = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = 0.123456 if isinstance(place[path[-1]], float) else 987654
        assert model_card("x", "1", changed, PROVENANCE) != card, path


def test_the_card_says_what_it_must(metrics: dict[str, Any]) -> None:
    card = model_card("mine", "0.2", metrics, PROVENANCE)
    for title in (
        "Intended use",
        "What it learned from",
        "Calibration",
        "Figures",
        "By grade, size and contrast",
        "Are the probabilities right",
        "Branches",
        "On real data",
        "Ablations",
        "Limits",
        "To reproduce",
        "Licences and attribution",
    ):
        assert f"## {title}\n" in card
    assert card.startswith("# Model card: mine 0.2") and "Research use only" in card
    assert "from **simulated** patients" in card and "rules anything out" in card
    assert "\\| &lt;b>" in card and "triage train" in card
    real = json.loads(json.dumps(metrics))
    real["cutoffs"]["calibrated_on"] = "real"
    assert "from **simulated**" not in model_card("mine", "0.2", real, PROVENANCE)


def test_a_target_at_chance_is_named(metrics: dict[str, Any]) -> None:
    changed = copy.deepcopy(metrics)
    changed["targets"]["bowel"]["auc"] = {"value": 0.55, "low": 0.41, "high": 0.69}
    assert "better than chance: bowel" in model_card("x", "1", changed, PROVENANCE)


def test_an_empty_card_claims_nothing() -> None:
    card = model_card("x", "1", {"targets": {}, "real": {"false alarms": 2, "dice": 0.5}}, {})
    assert "Nothing was measured" in card and "false alarms: 2" in card


def test_the_card_says_that_patients_are_weighed(metrics: dict[str, Any]) -> None:
    other = copy.deepcopy(metrics)
    other["data"]["weighted"] = True
    for found in (*other["targets"].values(), other["any_injury"]):
        found["auc_weighted"] = {"value": 0.123, "low": 0.1, "high": 0.2}
    cards = [model_card("a", "1", m, PROVENANCE) for m in (metrics, other)]
    for said in ("Horvitz", "| AUC | AUC, weighted |", "| 0.12 (0.10-0.20) |", ", weighted 0.12"):
        assert [said in card for card in cards] == [False, True]
