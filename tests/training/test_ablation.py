"""Variants of one training are compared on the same held-out patients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_reference import ALL, NONE, write

from triage.decision.auc import auc_interval
from triage.training import ablation
from triage.training.ablation_variants import VARIANTS
from triage.training.cache import entries
from triage.types import TARGETS, Target

NAMES = ("organ", "joint")


def test_variants_are_compared_and_gone_on_with(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = next((shared / "weights").glob("*.safetensors"), None)
    if weights is None:
        pytest.skip(f"no ImageNet weights in {shared / 'weights'}")
    for i in range(6):
        write(tmp_path / "set", i, 41, ALL if i % 2 == 0 else NONE)
    few = [replace(v, name=n, size=64, unfrozen="4") for n, v in zip(NAMES, VARIANTS, strict=False)]
    monkeypatch.setattr(ablation, "VARIANTS", few)
    monkeypatch.setattr(ablation, "JUDGED", 4)
    arguments = ["--set", str(tmp_path / "set"), "--work", str(tmp_path / "work")]
    arguments += [
        "--weights",
        str(weights),
        "--epochs",
        "1",
        "--targets",
        "liver",
        "--slices",
        "24",
    ]
    ablation.main(arguments)
    found = json.loads((tmp_path / "work/ablations.json").read_text())
    assert set(NAMES) <= found.keys()
    assert any("mean of the highest three" in name for name in found)
    told = json.loads((tmp_path / "work/found/01-liver.json").read_text())
    assert (told["patients"], told["injured"]) == (6, 3)  # every patient was held out once
    assert told["variant"]["joint"]
    assert 0 <= found["joint"]["liver"]["value"] <= 1
    first = json.loads((tmp_path / "work/found/00-liver.json").read_text())
    gap = found["joint"]["liver"]["value"] - first["auc"]["max"]["value"]
    assert found["joint"]["liver"]["lead"]["value"] == pytest.approx(gap)
    assert "lead" not in found["organ"]["liver"]  # the baseline
    assert ", +0.000 (" not in ablation.table(found).splitlines()[2]

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation.Bench, "run", never)
    ablation.main(arguments)  # what is there is not trained again


def test_a_slice_shows_the_lesions_that_are_marked_in_it(tmp_path: Path) -> None:
    write(tmp_path, 0, 41, ALL)
    (entry,) = entries(tmp_path)
    marked = np.asarray(entry.labels[1])
    column = TARGETS.index(Target.LIVER)
    largest = int(((marked >> column) & 1).sum((1, 2)).argmax())
    assert ablation.lesions(entry, largest)[column] == 1
    empty = [z for z in range(1, len(marked) - 1) if not marked[z - 1 : z + 2].any()]
    assert not ablation.lesions(entry, empty[0]).any()


def test_a_lead_is_paired_and_needs_the_same_patients() -> None:
    rng = np.random.default_rng(0)
    labels, noise = np.array([0, 1] * 60), rng.normal(size=120)
    persons = [str(i) for i in range(120)]

    def found(scores: np.ndarray) -> dict[str, object]:  # type: ignore[type-arg]
        told = auc_interval(scores, labels, persons).to_dict()
        own = {"labels": labels.tolist(), "persons": persons, "scores": {"max": scores.tolist()}}
        return {"auc": {"max": told}, **own}

    first, better = found(noise + labels), found(noise + 1.3 * labels)
    one = ablation._figure(better, "max", first)
    assert one["lead"]["low"] > 0  # though the two intervals overlap
    assert first["auc"]["max"]["high"] > one["low"]  # type: ignore[index]
    shown = ablation.table({"first": {"liver": first["auc"]["max"]}, "better": {"liver": one}})  # type: ignore[index]
    assert ", +" in shown.splitlines()[3] and ", +" not in shown.splitlines()[2]
    others = {**better, "persons": persons[::-1]}
    assert "lead" not in ablation._figure(others, "max", first)
