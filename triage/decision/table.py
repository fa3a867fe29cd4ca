"""cutoffs.json: calibration, fusion, cutoffs and prevalence of each target.

    {"calibrated_on": "simulated" | "real",
     "targets": {"liver": {"calibration": {"slope", "intercept"},
                           "fusion": {"ensemble", "volume", "intercept"} | null,
                           "rule_out": {"cutoff", "sensitivity_lower_bound", "positives"},
                           "rule_in": {"cutoff", "specificity"},
                           "prevalence": p,
                           "engine_margin": log odds}, ...}}   (left out where it is 0)

Cutoffs are on the scale of the calibrated probability. A table that contradicts itself (rule-in
below rule-out, a bound that its positives do not bear out) is refused, and so is one on another
scale (what `triage cutoffs` writes).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from triage.decision import logistic
from triage.decision.calibration import Calibration
from triage.decision.checks import number, table
from triage.decision.cutoffs import sensitivity_lower_bound
from triage.decision.fusion import ENSEMBLE_ONLY, Fusion
from triage.nets import bundle
from triage.types import Cutoff, Target

CALIBRATED_ON = ("simulated", "real")
MOST_MARGIN = 10.0  # log odds
NEVER = 1.0  # as rule-in: no probability reaches it, nothing is suspected


@dataclass(frozen=True, slots=True)
class TargetCutoffs:
    """One target's way from logit to verdict. `fusion` is None where one branch alone answers.

    `engine_margin`: largest difference in the probability's log odds between the engine that
    calibrated and the others, measured (`scripts/engine-agreement`). A positive that lost so much
    is not ruled out. Log odds, because rule-out cutoffs are small: a difference that is small at a
    probability of one half would leave nothing of them.
    """

    calibration: Calibration
    rule_out: Cutoff
    rule_in: Cutoff
    prevalence: float
    fusion: Fusion | None = None
    engine_margin: float = 0.0

    @property
    def applied_rule_out(self) -> Cutoff:
        """The rule-out cutoff that is decided by: lowered by what engines differ in."""
        if not self.engine_margin:
            return self.rule_out
        odds, own = math.exp(-self.engine_margin), self.rule_out.cutoff
        return replace(self.rule_out, cutoff=own * odds / (1 - own + own * odds))

    def __post_init__(self) -> None:
        bound, n = self.rule_out.sensitivity_lower_bound, self.rule_out.positives
        if bound is None or n is None:
            raise ValueError("Expected a rule-out cutoff with its bound and its positives")
        if bound > sensitivity_lower_bound(n) + 1e-6:
            raise ValueError(
                f"Expected sensitivity_lower_bound <= {sensitivity_lower_bound(n):.6f}"
                f" for {n} positives, got {bound}"
            )
        if self.rule_in.cutoff < self.rule_out.cutoff:
            raise ValueError(
                f"Expected rule_in >= rule_out, got {self.rule_in.cutoff} < {self.rule_out.cutoff}"
            )

    def to_dict(self) -> dict[str, Any]:
        return {
            "calibration": self.calibration.to_dict(),
            "fusion": self.fusion.to_dict() if self.fusion else None,
            "rule_out": {
                "cutoff": self.rule_out.cutoff,
                "sensitivity_lower_bound": self.rule_out.sensitivity_lower_bound,
                "positives": self.rule_out.positives,
            },
            "rule_in": {"cutoff": self.rule_in.cutoff, "specificity": self.rule_in.specificity},
            "prevalence": self.prevalence,
            **({"engine_margin": self.engine_margin} if self.engine_margin else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TargetCutoffs:
        out, inn = table(data, "rule_out"), table(data, "rule_in")
        positives = number(out, "positives", 0, 1e9)
        if positives != int(positives):
            raise ValueError(f"Expected a whole number of positives, got {positives}")
        return cls(
            calibration=Calibration.from_dict(table(data, "calibration")),
            rule_out=Cutoff(
                number(out, "cutoff", 0, 1),
                sensitivity_lower_bound=number(out, "sensitivity_lower_bound", 0, 1),
                positives=int(positives),
            ),
            rule_in=Cutoff(
                number(inn, "cutoff", 0, 1),
                specificity=None
                if inn.get("specificity") is None
                else number(inn, "specificity", 0, 1),
            ),
            prevalence=number(data, "prevalence", 1e-9, 1 - 1e-9),
            fusion=Fusion.from_dict(table(data, "fusion")) if data.get("fusion") else None,
            engine_margin=number({"engine_margin": 0.0, **data}, "engine_margin", 0, MOST_MARGIN),
        )


def neutral(prevalence: float = 0.5) -> TargetCutoffs:
    """Cutoffs of a target that was not calibrated: neither suspected nor ruled out."""
    nothing = Cutoff(0.0, sensitivity_lower_bound=0.0, positives=0)
    return TargetCutoffs(Calibration(1.0, 0.0), nothing, Cutoff(NEVER), prevalence, ENSEMBLE_ONLY)


@dataclass(frozen=True, slots=True)
class CutoffTable:
    """What cutoffs.json says. `calibrated_on`: "simulated" or "real" patients."""

    calibrated_on: str
    targets: Mapping[Target, TargetCutoffs]

    def __post_init__(self) -> None:
        if self.calibrated_on not in CALIBRATED_ON:
            raise ValueError(
                f"Expected calibrated_on one of {CALIBRATED_ON}, got {self.calibrated_on!r}"
            )

    def evidence(self, target: Target, probability: float) -> float:
        """Log odds that a study's score adds to those of prevalence: above 0 it speaks for an
        injury, below 0 against (weight of evidence, Good 1950). 0 for a target without cutoffs."""
        entry = self.targets.get(target)
        if entry is None:
            return 0.0
        here, before = logistic.logit(np.array([probability, entry.prevalence]))
        return float(here - before)

    def branch_weights(self, target: Target) -> tuple[float, float]:
        """Of slice ensemble and volume net in the logit that is decided on."""
        entry = self.targets.get(target)
        fusion = entry.fusion if entry else None
        return (fusion.ensemble, fusion.volume) if fusion else (1.0, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """The content of cutoffs.json (also `write_bundle(cutoffs=...)`)."""
        return {
            "calibrated_on": self.calibrated_on,
            "targets": {str(target): entry.to_dict() for target, entry in self.targets.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CutoffTable:
        if data.get("scale", "probability") != "probability":
            raise ValueError(
                f"Expected cutoffs on calibrated probabilities, got scale {data['scale']!r}"[:200]
            )
        targets: dict[Target, TargetCutoffs] = {}
        entries = table(data, "targets")
        for name in entries:
            try:
                targets[Target(name)] = TargetCutoffs.from_dict(table(entries, name))
            except ValueError as error:
                raise ValueError(f"cutoffs of {name!r}: {error}") from error
        return cls(str(data.get("calibrated_on")), targets)

    @classmethod
    def from_bundle(cls, folder: Path) -> CutoffTable:
        """Read a bundle's cutoffs.json after its sha256 was checked; BundleError if it is unfit."""
        manifest = bundle.read_manifest(folder)
        try:
            data = json.loads(bundle.read_bytes(folder, bundle.CUTOFFS, manifest))
            found = cls.from_dict(table({"cutoffs.json": data}, "cutoffs.json"))
            if found.calibrated_on != manifest.calibrated_on:
                raise ValueError(f"calibrated_on {found.calibrated_on!r} is not the manifest's")
        except (ValueError, RecursionError) as error:
            raise bundle.BundleError(
                f"a valid {bundle.CUTOFFS}", str(error)[:300], "Fit the cutoffs again."
            ) from error
        return found
