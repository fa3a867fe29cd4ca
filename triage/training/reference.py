"""Train the bundle that ships, stage by stage: `python -m triage.training.reference --help`.

Every stage is seeded and resumable; run again after an interruption and it goes on.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triage.inference.networks import Networks
from triage.nets.bundle import find_bundle, read_manifest, reference
from triage.nets.localiser import Localiser
from triage.nets.mobilenet_v2 import split
from triage.nets.slice_net import SHARED, JointSliceNet, SliceEnsembles, Tail
from triage.nets.volume_net import VolumeNet
from triage.training import assemble, cache, localiser, scoring, slices, volume
from triage.training.card import model_card
from triage.types import TARGETS

FOLDS = 3


@dataclass(frozen=True)
class Set:
    """One set of simulated patients. Sets share no person; names are those of `cache.build`."""

    people: int
    seed: int
    variants: int
    enriched: float
    parametric_share: float
    backgrounds: tuple[str, ...]


# What the shipped bundle was made from. Calibration and test anatomies train nothing.
TRAIN_BACKGROUNDS = ("s0327", "s0328", "plain_trunk_3mm", "portal_abdomen_b")
SETS: dict[str, Set] = {
    "train": Set(57, 101, 3, 0.35, 0.4, TRAIN_BACKGROUNDS),
    "cal": Set(45, 202, 2, 0.55, 0.5, ("s0011",)),
    "well": Set(36, 404, 2, 0.0, 0.5, ("s0011",)),
    "test": Set(24, 303, 2, 0.5, 0.5, ("s0011",)),
}
STEPS = {"localiser_1": 600, "localiser": 900, "trunk": 400, "volume": 450}
MEMBER_EPOCHS = 4
AUGMENTED_COPIES = 2  # of each positive slice's trunk features; as many different negatives


def say(text: str) -> None:
    print(text, flush=True)


def entries(work: Path, name: str) -> list[cache.Entry]:
    found = cache.entries(work / "sets" / name)
    if not found:
        raise SystemExit(f"Expected simulated patients in {work / 'sets' / name}: run stage sets.")
    return found


def make_sets(work: Path, data: Path | None) -> None:
    for name, s in SETS.items():
        made = cache.build(
            work / "sets" / name,
            s.people,
            s.seed,
            variants=s.variants,
            enriched=s.enriched,
            parametric_share=s.parametric_share if data else 1.0,
            data=data,
            backgrounds=s.backgrounds,
        )
        say(f"set {name}: {made} patients made")


def samples(work: Path) -> tuple[list[cache.Entry], list[slices.Sample]]:
    """Training slices with labels; kept beside the sets, because finding them takes minutes."""
    path = work / "samples.pkl"
    found = {e.folder.name: e for e in entries(work, "train")}
    if path.exists():
        names, known = pickle.loads(path.read_bytes())  # noqa: S301 - our own work folder
        return [found[n] for n in names], known
    people = list(found.values())
    known = [s for i, e in enumerate(people) for s in slices.samples_of(i, e)]
    path.write_bytes(pickle.dumps(([e.folder.name for e in people], known)))
    return people, known


def train_localiser(work: Path) -> None:
    """Two learning-rate cycles; the second starts from the first one's weights."""
    people, first = entries(work, "train"), work / "cycle_1"
    localiser.train(people, first, steps=STEPS["localiser_1"], log=say)
    init = first / "localiser.pt"
    localiser.train(people, work, steps=STEPS["localiser"], seed=11, init=init, log=say)


def train_members(work: Path) -> None:
    """Each target's members on cached trunk features, one a fold."""
    people, known = samples(work)
    joint = JointSliceNet()
    state = torch.load(work / "trunk.pt", weights_only=True)
    joint.load_state_dict(state["net"])
    joint.eval()
    for target in TARGETS:
        out = work / f"members_{target.value}.pt"
        if out.exists():
            continue
        chosen = _chosen([s for s in known if s.target is target], seed=TARGETS.index(target))
        say(f"{target.value}: {len(chosen)} slices, {sum(s.label for s in chosen)} with lesion")
        features = slices.trunk_features(joint, people, chosen, seed=7, augment=True, log=say)
        labels = np.array([s.label for s in chosen])
        fold = slices.folds_of([people[s.entry].person for s in chosen], FOLDS, seed=5)
        members: list[dict[str, torch.Tensor]] = []
        for k in range(FOLDS):
            inside = np.flatnonzero(fold != k)
            tail = slices.train_member(
                joint,
                features[torch.from_numpy(inside)],
                labels[inside],
                epochs=MEMBER_EPOCHS,
                seed=100 * k + TARGETS.index(target),
                target=target,
            )
            held = np.flatnonzero(fold == k)
            say(f"{target.value} fold {k}: slice AUC {_auc(tail, features, labels, held):.3f}")
            members.append(tail.state_dict())
        torch.save(members, out)


def _chosen(known: Sequence[slices.Sample], seed: int) -> list[slices.Sample]:
    """Positives in augmented copies, and as many different negatives."""
    rng = np.random.default_rng(seed)
    positive = [s for s in known if s.label == 1] * AUGMENTED_COPIES
    negative = [s for s in known if s.label == 0]
    pick = rng.permutation(len(negative))[: len(positive)]
    return positive + [negative[int(i)] for i in pick]


@torch.no_grad()
def _auc(tail: Tail, features: torch.Tensor, labels: Any, index: Any) -> float:
    logits = tail(features[torch.from_numpy(index)].float())
    return assemble.auc(logits.numpy().astype(float), labels[index])


def load_trained(work: Path) -> tuple[Localiser, SliceEnsembles, VolumeNet]:
    """The trained networks of a work folder."""
    find, whole, joint = Localiser(), VolumeNet(), JointSliceNet()
    for net, name in ((find, "localiser"), (whole, "volume"), (joint, "trunk")):
        net.load_state_dict(torch.load(work / f"{name}.pt", weights_only=True)["net"])
    ensembles = SliceEnsembles(FOLDS)
    ensembles.trunk.load_state_dict(split(joint.net, SHARED)[0].state_dict())
    for target in TARGETS:
        members = torch.load(work / f"members_{target.value}.pt", weights_only=True)
        for tail, weights in zip(ensembles.of(target), members, strict=True):
            tail.load_state_dict(weights)
    for trained in (find, ensembles, whole):
        trained.eval().requires_grad_(False)
    return find, ensembles, whole


def write_draft(work: Path) -> Path:
    """A bundle with neutral cutoffs: what the calibration patients are scored with."""
    find, ensembles, whole = load_trained(work)
    return assemble.write(
        work / "draft",
        version="0",
        localiser=find,
        slices=ensembles,
        volume=whole,
        cutoffs=assemble.neutral_table(),
        provenance={},
        card="Draft: not calibrated.",
        extra={},
    )


def score_sets(work: Path, names: Sequence[str]) -> None:
    nets = load_draft(work)
    for name in names:
        scoring.score_all(entries(work, name), nets, work / "scores" / f"{name}.csv", log=say)


def load_draft(work: Path) -> Networks:
    from triage.inference.networks import load_networks

    return load_networks(work / "draft", "auto")


def finish(work: Path, out: Path, version: str) -> None:
    """Cutoffs from the calibration sets, metrics from the test set, card, bundle."""
    fit = [*_scores(work, "cal"), *_scores(work, "well")]
    test = _scores(work, "test")
    table = assemble.fit_table(fit)
    metrics = assemble.metrics(test, table)
    metrics["localiser_dice"] = assemble.mean_dice(work / "scores/test_dice.csv")
    metrics["calibration"] = assemble.counts(fit)
    provenance: dict[str, Any] = {
        "command": "python -m triage.training.reference",
        "sets": {k: vars(v) for k, v in SETS.items()},
        "train_patients": len(entries(work, "train")),
        "slice_patients": len(samples(work)[0]),
        "steps": STEPS,
        "folds": FOLDS,
        "initial_weights": "MobileNetV2 1.0 224, ImageNet (Apache-2.0)",
    }
    find, ensembles, whole = load_trained(work)
    card = model_card(version, metrics, table, provenance)
    assemble.write(
        out,
        version=version,
        localiser=find,
        slices=ensembles,
        volume=whole,
        cutoffs=table,
        provenance=provenance,
        card=card,
        extra={"evaluation/metrics.json": assemble.to_json(metrics)},
    )
    say(f"wrote {reference(find_bundle(out))} {read_manifest(out).version}")


def _scores(work: Path, name: str) -> list[scoring.Row]:
    """Scores of a set; patients carry its name, because every set counts its patients from 0."""
    rows = scoring.read(work / "scores" / f"{name}.csv")
    return [{**r, "patient_id": f"{name}/{r['patient_id']}"} for r in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    stages = ("sets", "localiser", "trunk", "members", "volume", "score", "finish")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", default=stages, help=f"of {', '.join(stages)}")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and sets go here")
    parser.add_argument("--data", type=Path, help="folder with anatomy/ and ct/ backgrounds")
    parser.add_argument("--weights", type=Path, help="ImageNet weights (safetensors or .pth)")
    parser.add_argument("--out", type=Path, default=Path("models/reference"))
    parser.add_argument("--version", default="0.1.0")
    a = parser.parse_args(arguments)
    for stage in a.stages:
        say(f"stage {stage}")
        if stage == "sets":
            make_sets(a.work, a.data)
        elif stage == "localiser":
            train_localiser(a.work)
        elif stage == "trunk":
            slices.train_trunk(*samples(a.work), a.weights, a.work, steps=STEPS[stage], log=say)
        elif stage == "members":
            train_members(a.work)
        elif stage == "volume":
            volume.train(entries(a.work, "train"), a.work, steps=STEPS[stage], log=say)
        elif stage == "score":
            write_draft(a.work)
            score_sets(a.work, ("cal", "well", "test"))
        elif stage == "finish":
            finish(a.work, a.out, a.version)
        else:
            parser.error(f"unknown stage {stage!r}: expected some of {', '.join(stages)}")


if __name__ == "__main__":
    main()
