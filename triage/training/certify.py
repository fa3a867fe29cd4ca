"""Cutoffs of a trained bundle: fitted where there are patients for it, never claimed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from triage.decision.fit import fit_table
from triage.decision.scores import from_rows
from triage.decision.table import CutoffTable, TargetCutoffs, neutral
from triage.training.cases import Row
from triage.types import Target


@dataclass(frozen=True)
class Certified:
    """A bundle's cutoffs, and what is to be said about them."""

    table: CutoffTable
    notes: tuple[str, ...]
    fusion: Mapping[Target, str]


def uncertified(entry: TargetCutoffs) -> TargetCutoffs:
    """The same cutoffs without their certificate: nothing is ruled out by them."""
    return replace(entry, rule_out=replace(entry.rule_out, sensitivity_lower_bound=0.0))


def certify(
    calibration: Sequence[Row],
    out_of_fold: Sequence[Row],
    targets: Sequence[Target],
    *,
    calibrated_on: str,
    images_only: bool,
) -> Certified:
    """Fusion out of fold, calibration and cutoffs on calibration patients, target by target.

    A target without positives, negatives or healthy patients among them stays neutral. Where only
    single images calibrated, no certificate is given: the service judges volumes.
    """
    notes: list[str] = []
    usable = [t for t in targets if _fit_to_calibrate(calibration, t, notes)]
    entries: dict[Target, TargetCutoffs] = {t: neutral() for t in targets}
    fusion: dict[Target, str] = {}
    if usable:
        own = [r for r in calibration if r["target"] in {t.value for t in usable}]
        fused = [r for r in out_of_fold if r["target"] in {t.value for t in usable}]
        try:
            fitted = fit_table(
                from_rows(own),
                calibrated_on=calibrated_on,
                out_of_fold=from_rows(fused) if fused else None,
            )
            entries |= fitted.cutoffs.targets
            fusion = dict(fitted.fusion)
        except ValueError as error:
            notes.append(f"not calibrated: {error}")
    if images_only:
        entries = {t: uncertified(e) for t, e in entries.items()}
        notes.append(
            "calibrated on single images: cutoffs carry no certificate, volumes look different"
        )
    return Certified(CutoffTable(calibrated_on, entries), tuple(notes), fusion)


def _fit_to_calibrate(rows: Sequence[Row], target: Target, notes: list[str]) -> bool:
    own = [r for r in rows if r["target"] == target.value and r["assessed"]]
    positives = {r["patient_id"] for r in own if r["label"]}
    negatives = {r["patient_id"] for r in own} - positives
    if positives and negatives:
        return True
    notes.append(
        f"{target}: not calibrated, {len(positives)} positive and {len(negatives)} negative"
        " calibration patients: never suspected, nothing ruled out"
    )
    return False


def with_kept(
    new: CutoffTable, base: CutoffTable, kept: Sequence[Target], changed: bool
) -> CutoffTable:
    """New cutoffs beside those of targets that were kept from the base.

    What was kept stands on networks that are as they were; where one of them changed (`changed`)
    and the target was not calibrated anew, it is neutral. Its certificate holds only if both were
    calibrated on the same kind of patients.
    """
    entries: dict[Target, TargetCutoffs] = dict(new.targets)
    for target in kept:
        if entry := base.targets.get(target):
            same = base.calibrated_on == new.calibrated_on
            entries[target] = neutral() if changed else entry if same else uncertified(entry)
    return CutoffTable(new.calibrated_on, _ordered(entries))


def _ordered(entries: Mapping[Target, TargetCutoffs]) -> dict[Target, TargetCutoffs]:
    return {t: entries[t] for t in Target if t in entries}
