"""Verdicts: the whole truth table; the worst series; the suggested priority; cutoffs.json."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest

from triage.decision.calibration import Calibration
from triage.decision.cutoffs import sensitivity_lower_bound
from triage.decision.fusion import Fusion
from triage.decision.priority import suggest_priority
from triage.decision.table import CutoffTable, TargetCutoffs
from triage.decision.verdicts import OUR_FAILURES, combine, decide, worst
from triage.nets.bundle import BundleError
from triage.nets.bundle_writer import write_bundle
from triage.reasons import REASONS
from triage.types import TARGETS, Cutoff, Finding, Priority, Status, Target, Verdict

IDENTITY = Calibration(1.0, 0.0)


def entry(positives: int = 59) -> TargetCutoffs:
    """rule-out at logit -2, rule-in at logit 1."""
    return TargetCutoffs(
        IDENTITY,
        Cutoff(
            float(IDENTITY.apply(-2.0)),
            sensitivity_lower_bound=sensitivity_lower_bound(positives),
            positives=positives,
        ),
        Cutoff(float(IDENTITY.apply(1.0)), specificity=0.98),
        prevalence=0.1,
    )


BELOW, AT_OUT, BETWEEN, AT_IN, ABOVE = -2.001, -2.0, 0.0, 1.0, 5.0
S, E, N = Verdict.SUSPECTED, Verdict.NOT_EXCLUDED, Verdict.NO_FINDING
U, X = Verdict.UNCERTIFIED, Verdict.NOT_ASSESSED


@pytest.mark.parametrize(
    ("logit", "certified", "otherwise"),
    [(BELOW, N, U), (AT_OUT, E, U), (BETWEEN, E, U), (AT_IN, S, S), (ABOVE, S, S)],
)
def test_truth_table(logit: float, certified: Verdict, otherwise: Verdict) -> None:
    for calibrated_on, simulated_input, positives, reason in product(
        ("simulated", "real"), (True, False), (0, 28, 29, 300), (None, "NO_CONTRAST")
    ):
        finding = decide(
            Target.LIVER,
            logit,
            entry(positives),
            calibrated_on=calibrated_on,
            simulated_input=simulated_input,
            min_sensitivity_bound=0.90,
            not_assessed=reason,
            series_instance_uid="1.2",
        )
        holds = positives >= 29 and (calibrated_on == "real" or simulated_input)
        if reason:
            assert (finding.verdict, finding.probability, finding.reason) == (X, None, reason)
        else:
            assert finding.verdict is (certified if holds else otherwise)
            assert finding.probability == float(IDENTITY.apply(logit)) and finding.reason is None
        assert finding.flagged == (finding.verdict is S)
        assert finding.series_instance_uid == "1.2"
        assert finding.rule_out and finding.rule_out.positives == positives


@pytest.mark.parametrize("logit", [None, float("nan"), float("inf"), float("-inf")])
def test_no_score_is_never_a_negative(logit: float | None) -> None:
    finding = decide(
        Target.BOWEL,
        logit,
        entry(),
        calibrated_on="real",
        simulated_input=False,
        min_sensitivity_bound=0.0,
    )
    assert finding.verdict is X and finding.reason == "WORKER_FAILED"
    assert finding.probability is None


def test_an_unknown_reason_is_our_own_fault() -> None:
    with pytest.raises(KeyError):
        decide(
            Target.BOWEL, 0.0, entry(), calibrated_on="real", simulated_input=False,
            min_sensitivity_bound=0.9, not_assessed="BECAUSE",
        )  # fmt: skip


def finding(verdict: Verdict, probability: float | None = None, **more: Any) -> Finding:
    reason = more.pop("reason", "NO_CONTRAST") if verdict is X else None
    given = None if verdict is X else 0.5 if probability is None else probability
    return Finding(more.pop("target", Target.SPLEEN), verdict, given, reason=reason, **more)


def test_the_worst_series_counts_in_any_order() -> None:
    ladder = [S, E, U, N, X]  # worst first
    for a, b in permutations(range(len(ladder)), 2):
        pair = [finding(ladder[i], series_instance_uid=str(i)) for i in (a, b)]
        assert worst(pair).verdict is ladder[min(a, b)]
        assert worst(pair).series_instance_uid == str(min(a, b))
    higher = finding(U, 0.7, series_instance_uid="high")
    assert worst([finding(U, 0.2), higher, finding(U, 0.3)]) is higher


def test_our_failure_hides_behind_nothing_but_a_suspicion() -> None:
    assert set(REASONS) >= OUR_FAILURES
    for reason, verdict in product(REASONS, (S, E, U, N)):
        pair = [finding(verdict), finding(X, reason=reason)]
        failed = reason in OUR_FAILURES and verdict is not S
        assert worst(pair).verdict is worst(pair[::-1]).verdict is (X if failed else verdict)


def test_worst_and_combine_keep_targets_apart() -> None:
    with pytest.raises(ValueError, match="one target"):
        worst([finding(N), finding(N, target=Target.LIVER)])
    with pytest.raises(ValueError, match="one target"):
        worst([])
    first = {t: finding(N, target=t) for t in TARGETS}
    second = {Target.LIVER: finding(S, target=Target.LIVER)}
    both = combine([first, second])
    assert list(both) == list(TARGETS) and both[Target.LIVER].flagged
    assert sum(f.flagged for f in both.values()) == 1 and combine([]) == {}


def test_priority_truth_table() -> None:
    """All 5^5 combinations of verdicts and every status."""
    for verdicts in product((S, E, U, N, X), repeat=len(TARGETS)):
        findings = {t: finding(v, target=t) for t, v in zip(TARGETS, verdicts, strict=True)}
        expected = (
            Priority.STAT
            if S in verdicts
            else Priority.URGENT
            if X in verdicts
            else Priority.ROUTINE
        )
        assert suggest_priority(Status.ANALYSED, findings) is expected
    for status in (Status.RECEIVED, Status.ANALYSING, Status.NOT_ANALYSED, Status.ANALYSED):
        assert suggest_priority(status, {}) is Priority.URGENT
    assert suggest_priority(Status.NOT_APPLICABLE, {}) is Priority.ROUTINE
    clean = {t: finding(N, target=t) for t in TARGETS}
    assert suggest_priority(Status.NOT_ANALYSED, clean) is Priority.URGENT
    one_missing = {t: clean[t] for t in TARGETS[1:]}
    assert suggest_priority(Status.ANALYSED, one_missing) is Priority.URGENT
    found = one_missing | {Target.LIVER: finding(S, target=Target.LIVER)}
    assert suggest_priority(Status.NOT_ANALYSED, found) is Priority.STAT


def table() -> CutoffTable:
    fused = replace(entry(), fusion=Fusion(0.6, 0.3, -1.0))
    return CutoffTable("real", {Target.LIVER: fused, Target.BOWEL: entry(0)})


def test_cutoffs_json_round_trip_through_a_bundle(tmp_path: Path) -> None:
    import torch

    def write(name: str, calibrated_on: Any, cutoffs: dict[str, Any]) -> Path:
        return write_bundle(
            tmp_path / name, name=name, version="1", calibrated_on=calibrated_on,
            prevalence={Target.LIVER: 0.1}, networks={"liver": {"file": "w.safetensors"}},
            preprocessing={}, tensors={"w.safetensors": {"w": torch.zeros(1)}}, cutoffs=cutoffs,
            provenance={}, card="# Card",
        )  # fmt: skip

    folder = write("a", "real", table().to_dict())
    assert CutoffTable.from_bundle(folder) == table()
    other = write("b", "simulated", table().to_dict())
    with pytest.raises(BundleError, match="calibrated_on"):
        CutoffTable.from_bundle(other)
    (folder / "cutoffs.json").write_text("{}")
    with pytest.raises(BundleError, match="sha256"):
        CutoffTable.from_bundle(folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("calibrated_on",), "hope"),
        (("targets", "brain"), {}),
        (("targets", "liver"), None),
        (("targets", "liver", "rule_in", "cutoff"), 0.01),  # below rule-out
        (("targets", "liver", "rule_out", "sensitivity_lower_bound"), 0.99),  # 59 give 0.95
        (("targets", "liver", "rule_out", "positives"), 58.5),
        (("targets", "liver", "rule_out", "cutoff"), float("nan")),
        (("targets", "liver", "rule_out", "cutoff"), None),
        (("targets", "liver", "calibration", "slope"), -1.0),
        (("targets", "liver", "fusion", "volume"), -1.0),
        (("targets", "liver", "prevalence"), 0),
    ],
)
def test_tables_that_contradict_themselves_are_refused(path: tuple[str, ...], value: Any) -> None:
    data = json.loads(json.dumps(table().to_dict()))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=r"Expected|brain"):
        CutoffTable.from_dict(data)


def test_the_rule_out_cutoff_is_lowered_by_what_engines_differ_in() -> None:
    cautious = replace(entry(), engine_margin=0.2)
    assert (
        CutoffTable.from_dict(CutoffTable("real", {Target.LIVER: cautious}).to_dict()).targets[
            Target.LIVER
        ]
        == cautious
    )
    cutoff = cautious.rule_out.cutoff
    logit = math.log(cutoff / (1 - cutoff))
    verdicts = []
    for difference in (-0.21, -0.19, 0.01):
        found = decide(
            Target.LIVER,
            logit + difference,
            cautious,
            calibrated_on="real",
            simulated_input=False,
            min_sensitivity_bound=0.9,
        )
        assert found.rule_out is not None
        lowered = found.rule_out.cutoff
        assert math.log(lowered / (1 - lowered)) == pytest.approx(logit - 0.2)
        verdicts.append(found.verdict)
    assert verdicts == [N, E, E]


@pytest.mark.parametrize("cutoff", [0.0, 1e-6, 0.5, 1.0])
def test_without_a_margin_the_cutoff_stays(cutoff: float) -> None:
    own = replace(entry(), rule_out=replace(entry().rule_out, cutoff=cutoff), rule_in=Cutoff(1.0))
    assert own.applied_rule_out.cutoff == cutoff
    assert replace(own, engine_margin=1e-12).applied_rule_out.cutoff == pytest.approx(cutoff)


def test_evidence_is_what_a_score_adds_to_the_odds_of_prevalence() -> None:
    only = CutoffTable("simulated", {Target.LIVER: entry()})  # prevalence 0.1
    assert only.evidence(Target.LIVER, 0.1) == pytest.approx(0.0, abs=1e-12)
    assert only.evidence(Target.LIVER, 0.5) == pytest.approx(math.log(9))
    assert only.evidence(Target.LIVER, 0.01) < 0
    assert only.evidence(Target.SPLEEN, 0.99) == 0.0
