"""From scores to cutoffs: patients are counted once, and nothing is claimed that was not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triage.training.assemble import (
    EQUAL,
    auc,
    fit_table,
    metrics,
    neutral_table,
    prevalence,
    table_of,
    weights_to_prevalence,
)
from triage.training.card import model_card
from triage.types import TARGETS, Target


def rows(patients: int, seed: int, prefix: str = "p") -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    out = []
    for i in range(patients):
        for target in TARGETS:
            label = int(rng.random() < 0.3)
            out.append(
                {
                    "patient_id": f"{prefix}{i}",
                    "person": f"{prefix}{i}",
                    "target": target.value,
                    "label": label,
                    "grade": label * (1 + int(rng.random() < 0.4)),
                    "ensemble": rng.normal() + 2 * label,
                    "volume": rng.normal() + 2 * label,
                    "assessed": 1.0,
                }
            )
    return out


def test_a_patient_counts_once() -> None:
    with pytest.raises(ValueError, match="one row a patient"):
        table_of([*rows(3, 0), *rows(3, 1)], dict.fromkeys(TARGETS, EQUAL))


def test_what_was_not_assessed_is_no_score() -> None:
    some = rows(4, 0)
    some[0]["assessed"] = 0.0
    logits, _, _ = table_of(some, dict.fromkeys(TARGETS, EQUAL))
    assert np.isnan(logits).sum() == 1


def test_the_rule_out_cutoff_misses_no_calibration_positive() -> None:
    some = rows(120, 2)
    table = fit_table(some)
    logits, labels, _ = table_of(some, dict.fromkeys(TARGETS, EQUAL))
    for t, target in enumerate(TARGETS):
        entry = table.targets[target]
        p = entry.calibration.apply(logits[:, t])
        assert (p[labels[:, t] == 1] >= entry.rule_out.cutoff).all()
        assert entry.rule_out.positives == int(labels[:, t].sum())


def test_weights_bring_the_sample_to_prevalence() -> None:
    labels = np.array([1.0] * 30 + [0.0] * 70)
    weights = weights_to_prevalence(labels, 0.02)
    assert (weights @ labels) / weights.sum() == pytest.approx(0.02)


def test_prevalence_is_that_of_the_case_plan() -> None:
    natural = prevalence()
    assert natural[Target.BOWEL] == pytest.approx(0.02, abs=0.005)
    assert natural[Target.SPLEEN] == pytest.approx(0.11, abs=0.01)


def test_auc_counts_ties_half() -> None:
    scores = np.array([1.0, 2.0, 2.0, 3.0])
    assert auc(scores, np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(0.875)
    assert np.isnan(auc(scores, np.ones(4)))


def test_a_draft_rules_nothing_out() -> None:
    for entry in neutral_table().targets.values():
        assert entry.rule_out.cutoff == 0.0
        assert entry.rule_out.sensitivity_lower_bound == 0.0


def test_the_card_says_what_was_measured() -> None:
    fit, test = rows(120, 3, "a"), rows(60, 4, "b")
    table = fit_table(fit)
    measured = metrics(test, table)
    measured["localiser_dice"] = {"liver": 0.9}
    measured["calibration"] = {
        "patients": 120,
        "healthy": 20,
        "positives": {t.value: 36 for t in TARGETS},
    }
    provenance = {
        "train_patients": 10,
        "slice_patients": 8,
        "sets": {"train": {"people": 5}},
        "initial_weights": "none",
        "command": "x",
    }
    card = model_card("9.9", measured, table, provenance)
    value = measured["targets"]["liver"]["auc"]["value"]
    assert f"{value:.2f}" in card
    assert "Research use only" in card
    assert "not measured on any" in card
