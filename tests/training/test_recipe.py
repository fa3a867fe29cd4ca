"""What a work folder has trained, and what its base gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from triage.inference.networks import load_networks
from triage.nets.bundle import find_bundle, read_manifest
from triage.nets.localiser import Localiser
from triage.nets.volume_net import VolumeNet
from triage.simulate.plan import Case, natural
from triage.training import checkpoint, reference
from triage.training.cache import Entry
from triage.training.evaluation.real_ct import backgrounds
from triage.training.finish import COMMANDS, _numbers, provenance_of
from triage.training.recipe import (
    LOCALISER_AGAIN,
    SHIPPED,
    VOLUME_AGAIN,
    Set,
    choosers,
    learners,
    load_trained,
    read_volume,
    weighed,
)
from triage.types import TARGETS, Target

BASE = find_bundle("reference")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base() -> dict[str, torch.Tensor]:
    return dict(load_networks(BASE, "cpu").volume.state_dict())


def test_an_empty_folder_has_its_base_alone(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    found = load_trained(tmp_path, replace(SHIPPED, base=BASE))
    assert found.taken == ("localiser", "slices", "volume", "sequence")
    assert all(torch.equal(v, base[k]) for k, v in found.volume.state_dict().items() if k in base)
    with pytest.raises(FileNotFoundError):
        load_trained(tmp_path, SHIPPED)


def test_what_the_folder_trained_comes_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = VolumeNet().state_dict()
    checkpoint.save(tmp_path / f"{VOLUME_AGAIN}.pt", {"net": own})
    recipe = replace(SHIPPED, base=BASE)
    found = load_trained(tmp_path, recipe)
    assert found.taken == ("localiser", "slices", "sequence")
    assert all(torch.equal(v, own[k]) for k, v in found.volume.state_dict().items())
    told = provenance_of(tmp_path, recipe, found.taken, "9", judged=7, notes=["A note."])
    assert list(told["steps"]) == [VOLUME_AGAIN] and told["base"]["networks"] == list(found.taken)
    assert told["base"]["provenance"] == read_manifest(BASE).provenance
    assert told["commands"][0].split() == [
        *("python", "-m", "triage.training.reference", "sets", VOLUME_AGAIN),
        *("--work", "W", "--data", "DATA", "--base", "BASE"),
    ]
    assert "--judged 7" in told["commands"][1] and told["notes"] == ["A note."]
    finder = Localiser().state_dict()
    checkpoint.save(tmp_path / f"{LOCALISER_AGAIN}.pt", {"net": finder})
    later = load_trained(tmp_path, recipe)
    assert later.taken == ("slices", "sequence")
    assert all(torch.equal(v, finder[k]) for k, v in later.localiser.state_dict().items())


@pytest.mark.parametrize("deep", [False, True])
def test_a_volume_net_is_read_as_deep_as_it_was_trained(tmp_path: Path, deep: bool) -> None:
    checkpoint.save(tmp_path / "net.pt", {"net": VolumeNet(deep=deep).state_dict()})
    assert read_volume(tmp_path / "net.pt").architecture["deep"] is deep


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([0, 1, 2], "the first 3 patients"),
        ([0, 1, 3, 8], "4 patients (the first 2, and 2 injured ones among those up to number 9)"),
    ],
)
def test_which_patients_were_judged_is_said(numbers: list[int], said: str) -> None:
    assert _numbers([Entry(Path(f"j{n:05d}"), {}) for n in numbers]) == said


@pytest.mark.parametrize("line", COMMANDS)
def test_the_cards_commands_are_options_of_their_programs(line: str) -> None:
    words = line.format(
        stages="", given=" --base B", base=" --base B", judged=1, version="1"
    ).split()
    module = words[2].replace(".", "/") + ".py" if words[0] == "python" else words[0]
    code = (ROOT / module).read_text()
    for option in (w for w in words if w.startswith("--")):
        assert f'"{option}"' in code, f"{module} has no {option}"
    if words[0] != "python" and words[1] == "OUT":
        assert 'add_argument("bundle"' in code


def _person(folder: Path, number: int, anatomy: str) -> None:
    own = folder / "sets/train" / f"p{number:05d}_0"
    own.mkdir(parents=True)
    meta = {"person": f"p{number:05d}", "truth": {"anatomy": anatomy}}
    (own / "meta.json").write_text(json.dumps(meta))


def test_a_variant_trains_and_chooses_without_a_background(tmp_path: Path) -> None:
    for number in range(6):
        _person(tmp_path, number, "trunk" if number % 2 else "parametric")
    own = Set(6, 1, 1, 0.5, 0.5, ("trunk",))
    whole = replace(SHIPPED, sets={"train": own}, learn=4, early=2, steps={"volume": 10}, epochs=8)
    assert [e.person for e in learners(tmp_path, whole)] == [f"p{i:05d}" for i in range(4)]
    variant = replace(whole, without=("trunk",)).shortened(0.3)
    assert [e.person for e in learners(tmp_path, variant)] == ["p00000"]
    assert [e.person for e in choosers(tmp_path, variant)] == ["p00004"]
    assert (variant.steps, variant.epochs) == ({"volume": 3}, 2)
    told = provenance_of(tmp_path, variant, (), "9", judged=1, notes=())
    assert told["without"] == ["trunk"] and told["persons"]["train"] == 2
    assert "trunk" not in backgrounds(json.loads(json.dumps(told, default=vars)))


def test_an_unknown_background_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        reference.main(["sets", "--work", str(tmp_path), "--without", "s9999"])
    assert "no set has the background s9999" in capsys.readouterr().err


def test_calibration_sets_add_up_to_the_natural_population(tmp_path: Path) -> None:
    sets, none = SHIPPED.sets, Case()
    assert sets["train"].weight(none) is None  # each target is drawn alone
    injured, well = sets["cal"], sets["well"]
    assert injured.mix is not None
    total = dict.fromkeys(natural(), 0.0)
    for key, p in injured.mix.design.items():
        if p:
            total[key] += p * injured.people * (injured.weight(Case(*key)) or 0)
    total[none.key] += well.people * (well.weight(none) or 0)
    assert total == pytest.approx(natural())
    own = tmp_path / "sets/cal/p00000_0"
    own.mkdir(parents=True)
    case = {t.value: int(t is Target.BOWEL) for t in TARGETS}
    (own / "meta.json").write_text(json.dumps({"person": "p00000", "truth": {"case": case}}))
    (entry,) = weighed(tmp_path, SHIPPED, "cal")
    assert entry.meta["weight"] == injured.weight(Case(bowel=1))
