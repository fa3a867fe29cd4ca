"""The frozen test configuration: it does not change, it is drawn from, and its set is sound."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from triage.simulate.acquisition import STEPS, draw_frame
from triage.simulate.fields import Dice, Grid
from triage.simulate.judged import holds, judged_patient
from triage.simulate.patient import simulate
from triage.simulate.plan import GRADES, draw_phase, marginal, natural
from triage.simulate.protocol import (
    FOLDER,
    Protocol,
    check,
    expected_positives,
    load,
    stratum_of,
)
from triage.simulate.ranges import Ranges
from triage.types import TARGETS, Phase

# A frozen file never changes. Another distribution is another version, with a line of its own.
DIGESTS = {"1": "4f15b7c331b5fabd009128b87c61d1281e577291a9f21dcd5f4cd6e971b6da19"}
DRAWS = 500


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return load()


def test_frozen_files_are_as_they_were() -> None:
    files = {path.stem.removeprefix("v") for path in FOLDER.glob("*.json")}
    assert files == set(DIGESTS)
    for version, digest in DIGESTS.items():
        frozen = load(version)
        assert frozen.version == version and frozen.data["status"] == "frozen"
        assert frozen.sha256 == digest, (
            f"test protocol {version} was changed: put the change into a file of its own with a "
            "new version number, and leave this one as it was"
        )


def test_other_processes_can_have_it(protocol: Protocol) -> None:
    copy = pickle.loads(pickle.dumps(protocol))  # noqa: S301 - our own bytes
    assert copy == protocol and copy.judged(3) == protocol.judged(3)
    ranges = pickle.loads(pickle.dumps(protocol.ranges))  # noqa: S301 - our own bytes
    assert ranges.to_dict() == protocol.ranges.to_dict()


def test_latest_is_called_test_and_others_are_refused() -> None:
    assert load("test").sha256 == load().sha256
    for wrong in ("0", "../v1", ""):
        with pytest.raises(ValueError, match="expected test or 1"):
            load(wrong)


def test_every_distribution_names_its_source(protocol: Protocol) -> None:
    for block in ("phases", "slices", "kernels", "motion", "artefacts", "body", "judged"):
        assert protocol.data[block]["source"], block
    for block in ("lesions", "lookalikes"):
        assert all(row["source"] for row in protocol.data[block].values())
    assert set(protocol.ranges.table) == set(Ranges().table)


def shares(values: list, kinds: list) -> list[float]:
    count = Counter(values)
    assert set(count) <= set(kinds)
    return [count[kind] / len(values) for kind in kinds]


def test_draws_follow_it(protocol: Protocol) -> None:
    """500 patients' phase, kernel, noise, thickness, motion and body, without their voxels."""
    plans = []
    for number in range(DRAWS):
        dice = Dice((number, 77))
        plans.append(
            (draw_phase(dice, protocol.phases), protocol.scanner(dice), protocol.person(dice))
        )
    phases, scanners, people = zip(*plans, strict=True)
    near = pytest.approx
    assert shares(list(phases), list(protocol.phases)) == near(
        list(protocol.phases.values()), abs=0.07
    )
    thickness = {float(mm): w for mm, w in protocol.data["slices"]["thickness_mm"].items()}
    total = sum(thickness.values())
    assert shares([s.slice_mm for s in scanners], list(thickness)) == near(
        [w / total for w in thickness.values()], abs=0.07
    )
    kinds = protocol.data["kernels"]["kinds"]

    def is_kind(scanner: object, name: str) -> bool:
        return all(
            kinds[name][key][0] <= getattr(scanner, attribute) <= kinds[name][key][1]
            for key, attribute in (("psf_mm", "psf_mm"), ("noise_hu", "noise"))
        )

    assert all(any(is_kind(s, name) for name in kinds) for s in scanners)
    assert np.mean([s.psf_mm < 0.55 for s in scanners]) == near(
        kinds["sharp"]["p"] * (0.55 - 0.35) / (0.6 - 0.35), abs=0.06
    )
    motion = protocol.data["motion"]
    assert np.mean([s.motion > 0 for s in scanners]) == near(motion["p"], abs=0.05)
    artefacts = protocol.data["artefacts"]
    shape, scale = artefacts["streaks_gamma"]
    assert np.mean([s.streaks for s in scanners]) == near(shape * scale, rel=0.12)
    assert np.mean([s.blotch > 0 for s in scanners]) == near(artefacts["blotch_p"], abs=0.06)
    assert np.mean([s.table for s in scanners]) == near(artefacts["table_p"], abs=0.05)
    body = protocol.data["body"]
    assert np.mean([p.female for p in people]) == near(body["female_p"], abs=0.07)
    for name in ("female", "male"):
        own = [p for p in people if p.female == (name == "female")]
        mean, sd = body[name]["half_width_mm"]
        width = np.array([p.half_width for p in own])
        assert width.mean() == near(mean, abs=2.5)
        assert width.std() == near(np.hypot(sd, body["half_width_mm_a_mass"]), rel=0.2)
        log_fat = np.log([p.fat for p in own])
        mean, sd = body[name]["fat_log_mm"]
        assert log_fat.mean() == near(mean, abs=0.13)
        assert log_fat.std() == near(np.hypot(sd, body["fat_log_a_mass"]), rel=0.2)
        low, high = body[name]["abdominal_wall_mm"]
        assert all(low <= p.muscle <= high for p in own)
    low, high = body["fat_within_mm"]
    assert all(low <= p.fat <= high for p in people)
    assert shares([p.arms for p in people], list(body["arms"])) == near(
        list(body["arms"].values()), abs=0.06
    )


def test_written_slices_follow_it(protocol: Protocol) -> None:
    """Increment and thickness of 500 frames lie within 1 to 5 mm."""
    grid = Grid((20, 16, 40), (18.0, 18.0, 11.0), (-170.0, -140.0, -220.0))
    body = -1000 + 1040 * np.ones(grid.shape, np.float32)
    import torch

    steps = protocol.steps
    assert set(steps) <= set(STEPS)
    for number in range(DRAWS):
        frame = draw_frame(torch.from_numpy(body), grid, 64, Dice(number), steps)
        assert frame.step_mm in steps and 1 <= frame.thickness_mm <= 5


def test_intended_use_is_held(protocol: Protocol) -> None:
    """Contrast-enhanced, 1 to 5 mm: a file outside it does not load."""
    for path, value in (
        (("phases", "weights"), {"plain": 1.0}),
        (("slices", "thickness_mm"), {"7.5": 1}),
        (("judged", "strata"), {"uninjured": 10}),
        (("judged", "strata"), {"uninjured": 500, "pancreas": 10}),
    ):
        data = json.loads(json.dumps(protocol.data))
        data[path[0]][path[1]] = value
        with pytest.raises(ValueError, match=r"Expected|fewer|Unknown"):
            check(dataclasses.replace(protocol, data=data))


def test_the_judged_set_keeps_its_rule(protocol: Protocol) -> None:
    least = protocol.data["judged"]["at_least"]
    plans = [protocol.judged(n) for n in range(protocol.patients)]
    strata = Counter(p.stratum for p in plans)
    assert strata == protocol.strata
    for target in TARGETS:  # promised by strata alone, which are made again until they hold
        names = [s for s in strata if (about := stratum_of(s)) and about[0] is target]
        assert sum(strata[s] for s in names) >= least["positives"]
        if GRADES[target] == 2:
            assert strata[f"{target}_high"] >= least["high_grade"]
        planned = sum(p.case.grade(target) > 0 for p in plans)
        assert planned == pytest.approx(expected_positives(protocol, target), rel=0.15)
    assert strata["uninjured"] >= least["negatives"]
    assert shares([p.anatomy for p in plans], list(protocol.anatomies)) == pytest.approx(
        list(protocol.anatomies.values()), abs=0.05
    )


def test_weights_bring_back_the_natural_prevalence(protocol: Protocol) -> None:
    plans = [protocol.judged(n) for n in range(protocol.patients)]
    weight = np.array([p.weight for p in plans])
    assert weight.mean() == pytest.approx(1, abs=0.03)
    for target in TARGETS:
        for grade in range(1, GRADES[target] + 1):
            hurt = np.array([p.case.grade(target) == grade for p in plans])
            share = (weight * hurt).sum() / weight.sum()
            assert share == pytest.approx(marginal(natural(), target, grade), abs=0.01)


def test_judged_cases_are_the_same_every_time(protocol: Protocol) -> None:
    assert [protocol.judged(n) for n in (0, 7)] == [load().judged(n) for n in (0, 7)]
    with pytest.raises(IndexError, match="Expected 0 to"):
        protocol.judged(protocol.patients)


def test_a_judged_patient_has_the_injury_of_its_stratum(protocol: Protocol, shared: Path) -> None:
    coarse = json.loads(json.dumps(protocol.data))
    coarse["judged"]["spacing_mm"] = [5.0, 5.0, 6.0]
    quick = dataclasses.replace(protocol, data=coarse)
    plans = [protocol.judged(n) for n in range(protocol.patients)]
    chosen = next(p for p in plans if p.stratum == "spleen_high" and p.anatomy == "parametric")
    patient = judged_patient(quick, chosen.number)
    assert holds(patient, chosen) and patient.truth["judged"]["number"] == chosen.number
    assert patient.phase is not Phase.PLAIN
    held_out = next(p for p in plans if p.anatomy != "parametric")
    with pytest.raises(ValueError, match=f"held-out anatomy {held_out.anatomy}, got none"):
        judged_patient(quick, held_out.number)


def test_lesions_are_drawn_from_its_ranges(protocol: Protocol) -> None:
    """With the range of one quantity moved, the patient made from the same seed is another."""
    ranges = protocol.ranges.to_dict()
    for key in ranges:
        if key.startswith("cyst.rate"):
            ranges[key] = {**ranges[key], "low": 0.0, "high": 0.0}
    setting = {"spacing": (8.0, 8.0, 12.0), "scanned": False}
    for seed in range(3):
        (patient,) = simulate(seed, ranges=Ranges.from_dict(ranges), **setting)
        assert not any(lesion["kind"] == "cyst" for lesion in patient.truth["lesions"])
