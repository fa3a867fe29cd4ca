"""Fusion out of fold, cutoffs on other patients; and few positives certify nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triage.decision.fit import fit_table, fused_logits
from triage.decision.fusion import EQUAL, MIN_CASES, choose_fusion, fit_fusion
from triage.decision.scores import from_rows
from triage.decision.verdicts import decide
from triage.types import TARGETS, Target, Verdict


def rows(patients: int, seed: int, prefix: str = "p", **more: Any) -> list[dict[str, Any]]:
    """Both branches tell the injured; the volume net is the better one."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(patients):
        for target in TARGETS:
            label = int(rng.random() < 0.4)
            row = {
                "patient_id": f"{prefix}{i}",
                "target": target.value,
                "label": label,
                "ensemble": rng.normal() + label,
                "volume": rng.normal() + 2.5 * label,
            }
            out.append(row | more)
    return out


def test_fusion_comes_out_of_fold_and_says_so() -> None:
    fitted = fit_table(
        from_rows(rows(120, 1, "c")), calibrated_on="real", out_of_fold=from_rows(rows(300, 2, "t"))
    )
    for target in TARGETS:
        fusion = fitted.cutoffs.targets[target].fusion
        assert fusion is not None and fusion.volume > fusion.ensemble > 0
        assert "fitted on 300 out-of-fold patients" in fitted.fusion[target]


def test_few_positives_leave_the_branches_equal() -> None:
    labels = np.array([1] * (MIN_CASES - 1) + [0] * 100)
    fusion, said = choose_fusion(labels * 9.0, -labels * 9.0, labels)
    assert fusion == EQUAL and "too few" in said
    assert choose_fusion(-labels * 1.0, -labels * 1.0, labels)[0] == EQUAL


def test_the_ridge_draws_the_weights_together() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 100)
    a, b = labels + rng.normal(0, 1, 200), labels + rng.normal(0, 2, 200)
    apart = []
    for ridge in (0.0, 10.0, 1e6):
        fusion = fit_fusion(a, b, labels, ridge=ridge)
        apart.append(fusion.ensemble * a.std() - fusion.volume * b.std())
    assert apart[0] > apart[1] > apart[2] > -1e-9 and apart[2] < 1e-3


@pytest.mark.parametrize("same", ["patient", "person"])
def test_who_fused_may_not_calibrate(same: str) -> None:
    calibration, other = rows(60, 1, "c"), rows(60, 2, "t")
    if same == "patient":
        other[7]["patient_id"] = "c3"
        other = [r for r in other if r["patient_id"] in ("c3", "t4")]
    else:
        calibration = [r | {"person": "ann"} for r in calibration]
        other = [r | {"person": "ann"} for r in other]
    with pytest.raises(ValueError, match=f"1 {same}s in both tables: (c3|ann)"):
        fit_table(from_rows(calibration), calibrated_on="real", out_of_fold=from_rows(other))


def test_the_worst_series_counts_after_fusing() -> None:
    some = rows(80, 3)
    twice = [r | {"series_id": "1"} for r in some]
    twice += [
        r | {"series_id": "2", "ensemble": r["ensemble"] - 5, "volume": r["volume"] - 1}
        for r in some
    ]
    one = fit_table(from_rows(some), calibrated_on="real").cutoffs
    assert fit_table(from_rows(twice), calibrated_on="real").cutoffs == one


def test_rule_out_misses_no_calibration_positive_and_what_was_not_assessed_counts_nowhere() -> None:
    some = rows(120, 2)
    some[0]["assessed"] = 0
    table = from_rows(some)
    fitted = fit_table(table, calibrated_on="simulated")
    logits = table.worst(fused_logits(table, dict.fromkeys(TARGETS, EQUAL)))
    assert np.isnan(logits).sum() == 1
    for t, target in enumerate(TARGETS):
        entry = fitted.cutoffs.targets[target]
        seen = ~np.isnan(logits[:, t])
        p, y = entry.calibration.apply(logits[seen, t]), table.labels[seen, t]
        assert (p[y == 1] >= entry.rule_out.cutoff).all()
        assert entry.rule_out.positives == int(y.sum())
        assert fitted.fusion[target].startswith("equal weights: no out-of-fold")


def test_a_branch_that_has_a_weight_must_have_answered() -> None:
    some = rows(30, 4)
    some[5]["volume"] = None
    with pytest.raises(ValueError, match="volume net"):
        fit_table(from_rows(some), calibrated_on="real")


def test_one_branch_alone_needs_no_fusion() -> None:
    some = [{k: v for k, v in r.items() if k != "volume"} for r in rows(60, 5)]
    fitted = fit_table(from_rows(some), calibrated_on="real")
    assert all(entry.fusion is None for entry in fitted.cutoffs.targets.values())


def test_a_target_without_positives_is_named() -> None:
    some = [r | {"label": 0} if r["target"] == "kidney" else r for r in rows(60, 6)]
    with pytest.raises(ValueError, match="kidney: expected positives and negatives"):
        fit_table(from_rows(some), calibrated_on="real")


@pytest.mark.parametrize(("patients", "certified"), [(40, False), (200, True)])
def test_too_few_positives_are_uncertified(patients: int, certified: bool) -> None:
    fitted = fit_table(from_rows(rows(patients, 7)), calibrated_on="real")
    entry = fitted.cutoffs.targets[Target.LIVER]
    assert (fitted.positives[Target.LIVER] >= 29) == certified
    found = decide(
        Target.LIVER,
        -50.0,
        entry,
        calibrated_on="real",
        simulated_input=False,
        min_sensitivity_bound=0.9,
    )
    assert found.verdict is (Verdict.NO_FINDING if certified else Verdict.UNCERTIFIED)


def test_the_healthy_of_few_targets_are_those_without_any_injury() -> None:
    """Injured elsewhere and high in the liver: such a patient does not set the liver's rule-in."""
    found = []
    for known in (False, True):
        table = [r for r in rows(200, 11) if r["target"] == Target.LIVER.value]
        for i, row in enumerate(table):
            other = i % 10 == 0 and not row["label"]
            row["ensemble"] += 30 * other
            if known:
                row["any_injury"] = int(row["label"] or other)
        found.append(fit_table(from_rows(table), calibrated_on="real"))
    judged, known_ = found
    assert "free of the judged targets" in judged.healthy_means
    assert known_.healthy_means == "without any injury"
    assert known_.healthy < judged.healthy
    cutoffs = [f.cutoffs.targets[Target.LIVER].rule_in.cutoff for f in found]
    assert cutoffs[1] < cutoffs[0]
    for row in (hurt := [r for r in rows(60, 12) if r["target"] == Target.LIVER.value]):
        row["any_injury"] = 1
    with pytest.raises(ValueError, match="patients without any injury, got none"):
        fit_table(from_rows(hurt), calibrated_on="real")


def stratified(patients: int, seed: int, prefix: str, natural: float) -> list[dict[str, Any]]:
    """Half injured elsewhere, which lifts both branches; `natural`: how many are in the population.

    The row's weight says how much too many they are.
    """
    rng = np.random.default_rng(seed)
    out = []
    for i in range(patients):
        elsewhere = i % 2
        label = int(rng.random() < 0.3)
        weight = natural / 0.5 if elsewhere else (1 - natural) / 0.5
        row = {"patient_id": f"{prefix}{i}", "person": f"{prefix}{i}", "label": label}
        row |= {"ensemble": rng.normal() + label + 2 * elsewhere, "weight": weight}
        out += [row | {"target": t.value, "volume": rng.normal() + label} for t in TARGETS]
    return out


def test_weights_of_a_stratified_sample_calibrate_for_the_population() -> None:
    natural, chosen = 0.05, from_rows(stratified(4000, 1, "c", 0.05))
    table = fit_table(chosen, calibrated_on="real").cutoffs
    population = np.random.default_rng(5)
    n = 20_000
    label = population.random(n) < 0.3
    elsewhere = population.random(n) < natural
    e = population.normal(size=n) + label + 2 * elsewhere
    v = population.normal(size=n) + label
    entry = table.targets[Target.LIVER]
    assert entry.fusion is not None
    p = entry.calibration.apply(np.array([entry.fusion.apply(*x) for x in zip(e, v, strict=True)]))
    assert p.mean() == pytest.approx(label.mean(), abs=0.01)
    assert entry.prevalence == pytest.approx(0.3, abs=0.03)
    blind = [r | {"weight": None} for r in stratified(4000, 1, "c", 0.05)]
    other = fit_table(from_rows(blind), calibrated_on="real").cutoffs.targets[Target.LIVER]
    assert other.fusion is not None
    q = other.calibration.apply(np.array([other.fusion.apply(*x) for x in zip(e, v, strict=True)]))
    assert abs(q.mean() - label.mean()) > 0.03  # without them it is the sample's


def test_weights_choose_the_branch_that_serves_the_population() -> None:
    """Injuries elsewhere, of whom the sample has too many, mislead the slices."""
    weighed = stratified(600, 2, "t", 0.05)
    blind = [r | {"weight": None} for r in weighed]
    some = from_rows(rows(120, 1, "c"))
    shares = []
    for out_of_fold in (weighed, blind):
        fitted = fit_table(some, calibrated_on="real", out_of_fold=from_rows(out_of_fold))
        fusion = fitted.cutoffs.targets[Target.LIVER].fusion
        assert fusion is not None
        shares.append(fusion.ensemble / (fusion.ensemble + fusion.volume))
    assert shares[0] > shares[1] + 0.1
