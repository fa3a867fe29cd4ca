"""`retrain.train` on simulated volumes: everything that can be trained ends in a whole bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from triage.inference.networks import load_networks
from triage.nets.bundle import verify
from triage.simulate.study import write_dataset
from triage.training import parts, sequence
from triage.training.job import Options
from triage.training.retrain import train
from triage.types import TARGETS, Target

pytestmark = pytest.mark.long
SHORT = Options(
    (),
    folds=2,
    epochs=1,
    size=64,
    calibration=0.25,
    steps={"localiser": 3, "trunk": 3, "volume": 3},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "data"
    write_dataset(out, 16, 5, enriched=0.5, spacing=(4.0, 4.0, 6.0), matrix=96)
    return out


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.set_num_threads(1)
    monkeypatch.setitem(sequence.train_heads.__kwdefaults__, "fewest", 1)
    monkeypatch.setitem(sequence.train_heads.__kwdefaults__, "steps", 4)
    yield


def run(data: Path, out: Path, options: Options) -> tuple[Path, list[str]]:
    said: list[str] = []
    return train(data, out, options, device="cpu", log=said.append), said


@pytest.mark.parametrize("network", ["localiser", "volume", "trunk"])
def test_a_shared_network_ends_in_a_whole_bundle(network: str, data: Path, tmp_path: Path) -> None:
    out, said = run(data, tmp_path / "b", replace(SHORT, networks=(network,)))
    manifest, nets = verify(out), load_networks(out, "cpu")
    assert f"evaluation/curve_{network}.png" in manifest.files
    assert manifest.provenance["refitted"] == [t.value for t in TARGETS]
    assert all(nets.slices.members[t] for t in TARGETS)
    if network == "trunk":
        assert any("every member and sequence head stands on it" in text for text in said)
        assert manifest.provenance["targets"] == [t.value for t in TARGETS]
    else:
        assert any(text.startswith((f"{network}: goes on", f"{network}: starts")) for text in said)


def test_heads_are_trained_on_what_held_out_members_saw(data: Path, tmp_path: Path) -> None:
    options = replace(SHORT, targets=(Target.LIVER,), add_simulated=1)
    out, said = run(data, tmp_path / "b", options)
    manifest, nets = verify(out), load_networks(out, "cpu")
    assert any(text.startswith("sequence liver: AUC") for text in said)
    metrics = json.loads((out / "evaluation/metrics.json").read_text())
    text = metrics["sequence_heads"]["liver"]
    kept = nets.sequence is not None and Target.LIVER in nets.sequence
    assert text.endswith("the head answers") == kept
    assert "## Sequence heads" in (out / "MODEL_CARD.md").read_text()
    assert manifest.provenance["split"]["train_only"] == 1


def test_what_the_data_cannot_train_is_said_at_once(data: Path, tmp_path: Path) -> None:
    for folder, network in (("lesions", "volume"), ("segmentations", "localiser")):
        bare = tmp_path / network
        bare.mkdir()
        for name in ("train.csv", "train_images", "lesions", "segmentations"):
            if name != folder:
                (bare / name).symlink_to(data / name)
        options = replace(SHORT, networks=(network,))
        with pytest.raises(parts.PartError, match=f"{network}: expected volumes with {folder}"):
            run(bare, tmp_path / f"no {network}", options)
