"""From what the voxels show to reason codes, and how a real patient lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from triage.imaging.coarse import coarse
from triage.imaging.resample import to_grid
from triage.imaging.turns import HEAD_FOOT, IDENTITY, LEFT_RIGHT, TURNS, Turn
from triage.imaging.volume import straightened, to_volume
from triage.inference.levels import fitted_levels
from triage.inference.pose import Coverage, Orientation, orientation, turned
from triage.inference.quality import (
    LIMITS,
    RULES,
    Quality,
    QualityFinding,
    Seen,
    installed,
    judge_quality,
    refuse_or_warn,
    refusing,
    uncovered,
)
from triage.nets.quality_nets import REGIONS, level_name
from triage.reasons import NotAnalysed
from triage.settings import Settings
from triage.types import Target


def seen(
    turn: Turn = IDENTITY,
    odds: float = 9.0,
    region: str = "abdomen",
    levels: tuple[float, float] = (19.0, 9.0),
    facts: dict[str, Any] | None = None,
    **measures: float,
) -> Seen:
    """What is seen of 50 slices of one region."""
    regions = np.full((50, 5), 0.01, np.float32)
    regions[:, REGIONS.index(region)] = 0.96
    log_odds = {t.code: -9.0 for t in TURNS} | {"RAS": 0.0}
    if turn != IDENTITY:
        log_odds[turn.code] = odds
    found = Orientation(turn, 0.99, log_odds, torch.zeros(2))
    share = 0.96 if region == "abdomen" else 0.01
    covered = Coverage(regions, np.linspace(*levels, 50).astype(np.float32), share)
    return Seen(found, covered, 1.0, measures, facts or {}, LIMITS)


def codes(what: Seen) -> set[str]:
    return {code for code, rule in RULES if rule(what) is not None}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (seen(), set()),
        (seen(facts={"BodyPartExamined": "ABDOMEN"}), set()),
        (seen(facts={"BodyPartExamined": "HEAD"}), {"MISMATCH_BODY_PART"}),
        (seen(facts={"BodyPartExamined": "LSPINE"}), set()),  # lies in a trunk
        (seen(turn=LEFT_RIGHT), {"MIRRORED_OR_SITUS_INVERSUS"}),
        (seen(turn=LEFT_RIGHT, odds=1.0), set()),  # not sure enough
        (seen(turn=HEAD_FOOT), {"MISMATCH_ORIENTATION"}),
        (seen(region="chest", turn=HEAD_FOOT), {"NOT_ABDOMEN"}),  # orientation is not judged
        (seen(region="thigh", facts={"BodyPartExamined": "LEG"}), {"NOT_ABDOMEN"}),
        (
            seen(region="head", facts={"BodyPartExamined": "ABDOMEN"}),
            {"NOT_ABDOMEN", "MISMATCH_BODY_PART"},
        ),
        (seen(levels=(15.0, 9.0)), {"INCOMPLETE_COVERAGE"}),
        (seen(noise_hu=90.0), {"LOW_QUALITY"}),
        (seen(plausible=False), {"LOW_QUALITY"}),
    ],
)
def test_what_is_seen_gives_its_codes(what: Seen, expected: set[str]) -> None:
    assert codes(what) == expected


def test_targets_beyond_the_range_are_named() -> None:
    assert uncovered(seen(levels=(15.0, 9.0)).coverage) == (Target.BOWEL, Target.EXTRAVASATION)
    assert Target.LIVER in uncovered(seen(levels=(19.0, 13.0)).coverage)


def test_refusing_or_warning_is_a_setting() -> None:
    found = Quality({}, (QualityFinding("NOT_ABDOMEN", 0.97, "thighs"),))
    assert refuse_or_warn(found, refusing("LOW_QUALITY"), 0.9) == ("NOT_ABDOMEN: thighs",)
    assert refuse_or_warn(found, refusing("NOT_ABDOMEN"), 0.99) == ("NOT_ABDOMEN: thighs",)
    with pytest.raises(NotAnalysed, match="NOT_ABDOMEN"):
        refuse_or_warn(found, refusing(Settings().quality_refuse), 0.95)
    with pytest.raises(ValueError, match="NO_SUCH"):
        refusing("NO_SUCH")


def test_a_spine_is_laid_through_unsure_slices() -> None:
    """One slice that is far off does not move the others."""
    truth = np.linspace(20, 11, 50)
    p = np.exp(-0.5 * ((np.arange(25) - truth[:, None]) / 1.5) ** 2)
    p[30] = np.eye(25)[2]
    p /= p.sum(1, keepdims=True)
    found = fitted_levels(p, np.zeros(50))
    assert np.abs(found - truth).max() < 1
    assert (np.diff(found) <= 0).all()
    assert (level_name(12.4), level_name(13), level_name(18)) == ("T12", "L1", "S1")


def test_a_real_patient_is_found_in_every_kind_of_turn(shared: Path) -> None:
    nets = installed()
    if nets is None:
        pytest.skip("models/quality is not there")
    from triage.dicom import decode, open_study

    with open_study(shared / "ct" / "plain_trunk_3mm.nii.gz", Settings()) as study:
        volume = to_volume(decode(study.series[0], Settings()))
    grid = to_grid(straightened(volume)).as_tensor()
    for turn in (TURNS[0], TURNS[1], TURNS[7], TURNS[20], TURNS[41], LEFT_RIGHT):
        laid = turned(coarse(grid), turn)
        assert orientation(nets, laid).turn == turn.inverse
    upside_down = judge_quality(nets, grid.flip(3), {}, {})
    assert "MISMATCH_ORIENTATION" in {f.code for f in upside_down.findings}
    right = judge_quality(nets, grid, {}, {"BodyPartExamined": "HEAD"})
    assert {f.code for f in right.findings} >= {"MISMATCH_BODY_PART"}
    assert right.figures["axes"] == "RAS" and right.figures["level_top"] in ("T11", "T12")
