"""Verdicts: what is said of each target, on one series and over all series of a study.

With `p` the calibrated probability:

    not assessed, or no finite score            -> not_assessed, with a reason, p is None
    p >= rule-in                                -> suspected
    certificate does not hold                   -> uncertified
    p >= rule-out                               -> not_excluded
    p <  rule-out                               -> no_finding

The certificate of the rule-out cutoff holds if the lower bound of its sensitivity is high enough,
and if the images come from where the calibration patients came: a bundle calibrated on simulated
patients rules out nothing on a real scanner's images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from triage.decision.table import TargetCutoffs
from triage.reasons import REASONS
from triage.types import TARGETS, Finding, Target, Verdict

# The worst counts. Uncertified hides a score on either side of rule-out: above no_finding.
SEVERITY: dict[Verdict, int] = {
    Verdict.SUSPECTED: 4,
    Verdict.NOT_EXCLUDED: 3,
    Verdict.UNCERTIFIED: 2,
    Verdict.NO_FINDING: 1,
    Verdict.NOT_ASSESSED: 0,
}
# A series that nobody could judge (organ outside, no contrast) gives way to one that was judged.
# A series that should have been judged, and was not because we failed, does not: it may show the
# injury. Only a suspicion elsewhere says more than that.
OUR_FAILURES = frozenset({"WORKER_FAILED", "TIMED_OUT", "CANCELLED"})


def decide(
    target: Target,
    logit: float | None,
    cutoffs: TargetCutoffs,
    *,
    calibrated_on: str,
    simulated_input: bool,
    min_sensitivity_bound: float,
    not_assessed: str | None = None,
    series_instance_uid: str | None = None,
    side: str | None = None,
    grade: str | None = None,
) -> Finding:
    """The finding for one target on one series.

    `logit`: the fused, uncalibrated logit of the study-level score. `not_assessed`: reason code of
    the scope, if the target cannot be judged here; it wins over any score. A missing or not finite
    logit is `not_assessed` as well (WORKER_FAILED): NaN compares false with every cutoff and would
    pass for `no_finding`. `min_sensitivity_bound`: TRIAGE_MIN_SENSITIVITY_BOUND.
    """
    if not_assessed is not None and not_assessed not in REASONS:
        raise KeyError(f"Unknown reason code {not_assessed!r}")
    if not_assessed is None and (logit is None or not math.isfinite(logit)):
        not_assessed = "WORKER_FAILED"
    if logit is None or not_assessed is not None:
        return Finding(
            target,
            Verdict.NOT_ASSESSED,
            probability=None,
            series_instance_uid=series_instance_uid,
            reason=not_assessed,
            rule_out=cutoffs.applied_rule_out,
            rule_in=cutoffs.rule_in,
        )
    probability = float(cutoffs.calibration.apply(logit))
    certified = certificate_holds(
        cutoffs,
        calibrated_on=calibrated_on,
        simulated_input=simulated_input,
        min_sensitivity_bound=min_sensitivity_bound,
    )
    return Finding(
        target,
        _verdict(probability, cutoffs, certified),
        probability=probability,
        series_instance_uid=series_instance_uid,
        side=side,
        grade=grade,
        rule_out=cutoffs.applied_rule_out,
        rule_in=cutoffs.rule_in,
    )


def certificate_holds(
    cutoffs: TargetCutoffs,
    *,
    calibrated_on: str,
    simulated_input: bool,
    min_sensitivity_bound: float,
) -> bool:
    """True if a score below rule-out may be called `no_finding`."""
    if calibrated_on == "simulated" and not simulated_input:
        return False
    bound = cutoffs.rule_out.sensitivity_lower_bound
    return bound is not None and bound >= min_sensitivity_bound


def _verdict(probability: float, cutoffs: TargetCutoffs, certified: bool) -> Verdict:
    if probability >= cutoffs.rule_in.cutoff:
        return Verdict.SUSPECTED
    if not certified:
        return Verdict.UNCERTIFIED
    if probability >= cutoffs.applied_rule_out.cutoff:
        return Verdict.NOT_EXCLUDED
    return Verdict.NO_FINDING


def worst(findings: Iterable[Finding]) -> Finding:
    """The finding that counts for the study, of one target's findings on several series.

    Severity first, then probability, then the order given; the finding keeps its series. Any
    judged series beats one out of scope; a failure of ours beats all but a suspicion.
    """
    found = list(findings)
    if not found or len({finding.target for finding in found}) != 1:
        raise ValueError(f"Expected findings of one target, got {[str(f.target) for f in found]}")
    return max(found, key=_rank)


def _rank(finding: Finding) -> tuple[float, float]:
    severity: float = SEVERITY[finding.verdict]
    if finding.verdict is Verdict.NOT_ASSESSED and finding.reason in OUR_FAILURES:
        severity = SEVERITY[Verdict.SUSPECTED] - 0.5
    return severity, finding.probability or 0.0


def combine(series: Iterable[Mapping[Target, Finding]]) -> dict[Target, Finding]:
    """The study's findings: per target the worst over its series, in the order of `TARGETS`."""
    every = list(series)
    return {
        target: worst(findings[target] for findings in every if target in findings)
        for target in TARGETS
        if any(target in findings for findings in every)
    }
