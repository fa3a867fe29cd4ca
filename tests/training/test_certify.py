"""No certificate without calibration, and none that was made for something else."""

from __future__ import annotations

import numpy as np
import pytest

from triage.decision.table import CutoffTable, neutral
from triage.decision.verdicts import decide
from triage.training.cases import Row
from triage.training.certify import certify, uncertified, with_kept
from triage.types import Target, Verdict

LIVER, SPLEEN = Target.LIVER, Target.SPLEEN


def rows(
    target: Target, positives: int, negatives: int, *, prefix: str = "c", volume: bool = True
) -> list[Row]:
    rng = np.random.default_rng(positives)
    out: list[Row] = []
    for i in range(positives + negatives):
        label = int(i < positives)
        logit = float(rng.normal() + 4 * label)
        row: Row = {"patient_id": f"{prefix}{i}", "person": f"{prefix}{i}", "assessed": 1}
        row |= {"target": target.value, "label": label, "score": logit, "ensemble": logit}
        out.append(row | ({"volume": logit} if volume else {}))
    return out


def test_enough_positives_are_certified() -> None:
    found = certify(
        rows(LIVER, 40, 80),
        rows(LIVER, 40, 80, prefix="o"),
        [LIVER],
        calibrated_on="real",
        images_only=False,
    )
    bound = found.table.targets[LIVER].rule_out.sensitivity_lower_bound
    assert bound == pytest.approx(0.05 ** (1 / 40))
    assert found.table.calibrated_on == "real"
    assert "out-of-fold" in found.fusion[LIVER]


def test_single_images_certify_nothing() -> None:
    found = certify(
        rows(LIVER, 40, 80, volume=False), [], [LIVER], calibrated_on="real", images_only=True
    )
    out = found.table.targets[LIVER].rule_out
    assert out.sensitivity_lower_bound == 0.0
    assert out.positives == 40
    assert any("single images" in note for note in found.notes)


def test_without_positives_a_target_stays_neutral() -> None:
    calibration = [*rows(LIVER, 30, 60), *rows(SPLEEN, 0, 90)]
    found = certify(calibration, [], [LIVER, SPLEEN], calibrated_on="real", images_only=False)
    assert any(note.startswith("spleen: not calibrated, 0 positive") for note in found.notes)
    for logit in (-50.0, 0.0, 50.0):
        verdict = decide(
            SPLEEN,
            logit,
            found.table.targets[SPLEEN],
            calibrated_on="real",
            simulated_input=False,
            min_sensitivity_bound=0.0,
        ).verdict
        assert verdict is not Verdict.NO_FINDING
        assert verdict is not Verdict.SUSPECTED


def test_calibration_patients_may_not_fuse() -> None:
    some = rows(LIVER, 30, 60)
    found = certify(some, some, [LIVER], calibrated_on="real", images_only=False)
    assert found.table.targets[LIVER] == neutral()
    assert any("both tables" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["simulated", "real"])
@pytest.mark.parametrize("changed", [False, True])
def test_a_kept_certificate_holds_only_where_nothing_changed(kind: str, changed: bool) -> None:
    old = certify(rows(SPLEEN, 60, 60), [], [SPLEEN], calibrated_on="real", images_only=False)
    new = CutoffTable(kind, {LIVER: neutral()})
    kept = with_kept(new, old.table, [SPLEEN], changed).targets[SPLEEN]
    entry = old.table.targets[SPLEEN]
    if changed:
        assert kept == neutral()
    else:
        assert kept == (entry if kind == "real" else uncertified(entry))
