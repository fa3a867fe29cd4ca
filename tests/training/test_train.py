"""`retrain.train`: from a data set in the RSNA-2023 layout to a bundle for the service."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.small_layout import write_layout
from triage.decision.table import CutoffTable
from triage.decision.verdicts import certificate_holds
from triage.inference.networks import Networks, load_networks
from triage.nets.bundle import find_bundle, read_manifest, verify
from triage.training.folds import CALIBRATION, SplitError, trained_before, warning
from triage.training.job import Options
from triage.training.layout_tables import LayoutError
from triage.training.parts import PartError
from triage.training.retrain import train
from triage.training.scoring import score_data
from triage.training.start import StartError
from triage.types import TARGETS, Target

OPTIONS = Options((Target.LIVER,), folds=2, epochs=14, size=64, seed=1)
HURT = [i % 2 == 0 for i in range(28)]
LINES: list[str] = []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_layout(tmp_path_factory.mktemp("data"), HURT, slices=2)


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Liver retrained on single images with a planted sign."""
    out = tmp_path_factory.mktemp("trained") / "mine"
    return train(data, out, OPTIONS, device="cpu", log=LINES.append)


@pytest.fixture(scope="module")
def base() -> Networks:
    return load_networks(find_bundle("reference"), "cpu")


def test_the_bundle_is_complete(bundle: Path) -> None:
    manifest = verify(bundle)
    assert {"MODEL_CARD.md", "cutoffs.json", "evaluation/metrics.json"} <= set(manifest.files)
    assert any(f.startswith("evaluation/curve_liver-fold0") for f in manifest.files)
    told = manifest.provenance
    assert told["patients"] == len(HURT)
    assert told["refitted"] == ["liver"]
    assert manifest.calibrated_on == "real"
    assert "Research use only" in (bundle / "MODEL_CARD.md").read_text()


def test_no_person_is_on_two_sides(bundle: Path) -> None:
    split = json.loads((bundle / "evaluation/splits.json").read_text())
    places = list(split["persons"].values())
    assert len(places) == len(HURT)
    assert places.count(CALIBRATION) == 7
    assert set(places) == {0, 1, CALIBRATION}
    assert not any("100" in name for name in split["persons"])  # hashes, no names


def test_the_planted_sign_is_found_out_of_fold(bundle: Path) -> None:
    metrics = json.loads((bundle / "evaluation/metrics.json").read_text())
    assert metrics["targets"]["liver"]["auc"]["value"] > 0.85
    assert metrics["data"]["patients"] == len(HURT) - 7


def test_other_targets_keep_their_members_but_no_certificate(bundle: Path, base: Networks) -> None:
    nets, table = load_networks(bundle, "cpu"), CutoffTable.from_bundle(bundle)
    assert nets.slices.members[Target.LIVER] == 2
    assert nets.slices.size[Target.LIVER] == 64
    for target in TARGETS:
        if target is not Target.LIVER:
            assert nets.slices.members[target] == base.slices.members[target]
            own, old = nets.slices.of(target)[0], base.slices.of(target)[0]
            assert torch.equal(own.classifier.weight, old.classifier.weight)
        for simulated in (True, False):
            assert not certificate_holds(
                table.targets[target],
                calibrated_on=table.calibrated_on,
                simulated_input=simulated,
                min_sensitivity_bound=0.9,
            )


def test_the_bundle_scores_a_data_set(bundle: Path, tmp_path: Path) -> None:
    some = write_layout(tmp_path / "some", HURT[:4], slices=1, seed=5)
    (some / "train_images" / "103" / "9003" / "1.png").write_bytes(b"no picture")
    nets, out = load_networks(bundle, "cpu"), tmp_path / "scores.csv"
    rows = score_data(some, nets, out=out, log=LINES.append)
    liver = {r["patient_id"]: r for r in rows if r["target"] == "liver"}
    assert [r["assessed"] for r in liver.values()] == [1, 1, 1, 0]  # never hidden, never negative
    assert "score" not in liver["103"]
    assert liver["100"]["score"] > liver["101"]["score"]
    again = score_data(some, nets, out=out, log=LINES.append)  # from the file
    assert [r["patient_id"] for r in again] == [r["patient_id"] for r in rows]


def test_who_trained_a_bundle_does_not_judge_it_in_silence(bundle: Path) -> None:
    trained = trained_before(bundle, read_manifest(bundle))
    assert len(trained) == len(HURT) - 7
    persons = [str(100 + i) for i in range(len(HURT))]
    assert f"{len(trained)} of {len(HURT)} persons trained" in str(warning(persons, trained))
    assert warning(["somebody else"], trained) is None


def test_run_again_it_changes_nothing(bundle: Path, data: Path) -> None:
    before = json.loads((bundle / "bundle.json").read_text())["files"]
    train(data, bundle, OPTIONS, device="cpu", log=LINES.append)
    after = json.loads((bundle / "bundle.json").read_text())["files"]
    weights = [f for f in before if f.endswith(".safetensors")]
    assert {f: before[f] for f in weights} == {f: after[f] for f in weights}
    with pytest.raises(ValueError, match="other options"):
        train(data, bundle, replace(OPTIONS, seed=2), device="cpu", log=LINES.append)


def test_who_trained_a_bundle_never_calibrates_the_next(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    first = json.loads((bundle / "evaluation/splits.json").read_text())["persons"]
    options = replace(OPTIONS, init=str(bundle), epochs=1, seed=9)
    again = train(data, tmp_path / "again", options, device="cpu", log=LINES.append)
    second = json.loads((again / "evaluation/splits.json").read_text())["persons"]
    calibrating = {p for p, where in second.items() if where == CALIBRATION}
    assert calibrating
    assert all(first[p] == CALIBRATION for p in calibrating)
    metrics = json.loads((again / "evaluation/metrics.json").read_text())
    assert metrics["targets"] == {}  # everybody else trained the first one: nobody is out of fold
    notes = json.loads((again / "bundle.json").read_text())["provenance"]["notes"]
    assert any("trained the bundle that this one began from" in n for n in notes)


def test_without_a_bundle_other_targets_are_not_trained(tmp_path: Path) -> None:
    data = write_layout(tmp_path / "data", HURT[:8], slices=1)
    options = replace(OPTIONS, init="none", epochs=1)
    out = train(data, tmp_path / "fresh", options, device="cpu", log=LINES.append)
    assert [t for t, n in load_networks(out, "cpu").slices.members.items() if n] == [Target.LIVER]
    assert list(CutoffTable.from_bundle(out).targets) == [Target.LIVER]


def test_what_does_not_fit_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(options: Options, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            train(data, tmp_path / "no", options, work=tmp_path / message[:8], device="cpu")

    monkeypatch.delenv("TRIAGE_IMAGENET", raising=False)
    refuse(replace(OPTIONS, init="imagenet"), StartError, "TRIAGE_IMAGENET")
    refuse(replace(OPTIONS, init="absent.pth"), StartError, "no ImageNet weights at absent.pth")
    refuse(replace(OPTIONS, folds=12), SplitError, "has no positive patient")
    for network in ("volume", "localiser"):
        refuse(replace(OPTIONS, networks=(network,)), PartError, f"{network}: expected volumes")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match="no bundle"):
        train(data, tmp_path / "taken", OPTIONS, device="cpu")
    table = tmp_path / "partial"
    write_layout(table, HURT[:6], slices=1)
    text = "patient_id,liver_healthy,liver_low,liver_high\n100,0,1,0\n101,1,0,0\n"
    (table / "train.csv").write_text(text)
    with pytest.raises(LayoutError, match="no labels of spleen"):
        train(table, tmp_path / "x", replace(OPTIONS, targets=(Target.SPLEEN,)), device="cpu")
