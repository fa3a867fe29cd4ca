"""The way to the bundle that ships, from the first stage to the last, in a very small size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from triage.decision.table import CutoffTable
from triage.inference.networks import load_networks
from triage.nets.bundle import find_bundle, verify
from triage.simulate.patient import simulate
from triage.simulate.plan import Case
from triage.training import features, reference, sequence
from triage.training.cache import SPACING
from triage.training.recipe import AGAIN, VOLUME_AGAIN, VOLUME_FOUND, Recipe, Set
from triage.types import TARGETS

STEPS = {"localiser": 2, "trunk": 2, AGAIN: 2, "volume": 2, VOLUME_AGAIN: 2, VOLUME_FOUND: 2}
TINY = Recipe(
    {
        "train": Set(8, 31, 1, 0.6, 1.0, ()),
        "fuse": Set(4, 34, 1, {"uninjured": 1.0, "bowel": 1.0, "kidney": 1.0}, 1.0, ()),
        "cal": Set(4, 32, 1, {"bowel": 1.0, "kidney": 1.0}, 1.0, ()),
        "well": Set(3, 33, 1, 0.0, 1.0, ()),
    },
    learn=6,
    early=4,
    folds=2,
    epochs=1,
    steps=STEPS,
    validate_every=2,
)
COARSE = 4  # times the working grid's pixels, for speed
ALL, NONE = Case(1, 1, 2, 2, 2), Case(0, 0, 0, 0, 0)
TOGETHER = Case(1, 1, 0, 1, 0), Case(0, 0, 2, 0, 2)  # as the published labels have them
CASES = {
    "train": (ALL, NONE),
    "fuse": (*TOGETHER, NONE, NONE),
    "cal": TOGETHER,
    "well": (NONE,),
}


def write(folder: Path, number: int, seed: int, case: Case) -> None:
    """A patient simulated in large voxels, which are then cut into those of the working grid."""
    own = folder / f"p{number:05d}_0"
    own.mkdir(parents=True)
    side = SPACING[0] * COARSE
    (patient,) = simulate((seed, number), spacing=(side, side, 2 * SPACING[2]), case=case)
    lesions = torch.zeros_like(patient.organs, dtype=torch.uint8)
    for bit, target in enumerate(TARGETS):
        if target in patient.masks:
            lesions |= patient.masks[target].to(torch.uint8) << bit

    def fine(x: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
        out = x.permute(2, 1, 0).numpy()  # (Z, Y, X)
        return out.repeat(2, 0).repeat(COARSE, 1).repeat(COARSE, 2)

    np.save(own / "hu.npy", fine(patient.hu.round().to(torch.int16)))
    np.save(own / "labels.npy", np.stack([fine(patient.organs), fine(lesions)]))
    told = {
        "person": f"p{number:05d}",
        "phase": "portal_venous",
        "grades": {t.value: g for t, g in patient.grades.items()},
        "side": None,
        "known": [o.value for o in patient.known],
        "origin": patient.grid.origin,
        "truth": patient.truth,
    }
    (own / "meta.json").write_text(json.dumps(told))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_stage_from_sets_to_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setitem(features.build.__kwdefaults__, "copies", 2)
    monkeypatch.setitem(sequence.train_heads.__kwdefaults__, "steps", 4)
    monkeypatch.setitem(sequence.train_heads.__kwdefaults__, "fewest", 1)
    work, out = tmp_path / "work", tmp_path / "bundle"
    for name, own in TINY.sets.items():
        for i in range(own.people - (name == "well")):  # one is left for the stage
            write(work / "sets" / name, i, own.seed, CASES[name][i % len(CASES[name])])

    def stages(*names: str) -> None:
        arguments = [*names, "--work", str(work), "--out", str(out), "--judged", "1"]
        reference.main(arguments, TINY)

    stages("sets", "localiser")
    path = (
        work / "localiser.pt"
    )  # two steps teach it nothing: the others need one that finds organs
    state = torch.load(path, weights_only=True)
    state["net"] = load_networks(find_bundle("reference"), "cpu").localiser.state_dict()
    torch.save(state, path)
    stages("trunk", AGAIN, "members", "volume", VOLUME_AGAIN, VOLUME_FOUND, "sequence")
    stages("judged", "score", "finish")
    manifest, nets, table = verify(out), load_networks(out, "cpu"), CutoffTable.from_bundle(out)
    assert all(nets.slices.members[t] == TINY.folds for t in TARGETS)
    assert tuple(table.targets) == TARGETS and table.calibrated_on == "simulated"
    assert manifest.provenance["steps"] == STEPS
    assert "## Sequence heads" in (out / "MODEL_CARD.md").read_text()
    metrics = json.loads((out / "evaluation/metrics.json").read_text())
    assert metrics["data"]["patients"] == 1
    assert metrics["calibration"]["healthy_means"] == "without any injury"
    assert metrics["data"]["weighted"]
