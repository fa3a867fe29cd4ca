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

import torch

from triage.decision.fit import fit_table
from triage.decision.scores import from_rows
from triage.inference.networks import Networks, choose_device
from triage.nets.bundle import find_bundle, read_manifest, reference
from triage.nets.localiser import Localiser
from triage.nets.mobilenet_v2 import split
from triage.nets.slice_net import SHARED, SIZE, JointSliceNet, SliceEnsembles
from triage.nets.volume_net import VolumeNet
from triage.training import (
    assemble,
    cache,
    features,
    localiser,
    members,
    scoring,
    sequence,
    slices,
    trunk,
    volume,
)
from triage.training.card import PUBLISHED_AUC, model_card
from triage.training.checkpoint import read as read_weights
from triage.training.checkpoint import save as save_weights
from triage.training.checkpoint import trained_weights
from triage.training.evaluation.judged import judge_with_bundle
from triage.training.evaluation.prevalence import natural
from triage.training.evaluation.write import write_evaluation
from triage.training.folds import Split, make_split
from triage.training.layout import Patient
from triage.training.start import fresh_tail
from triage.types import TARGETS, Target

FOLDS = 3
DATA = [
    "Simulated patients only: parametric people, label maps of two real people and two real CTs "
    "without injury as backgrounds, with simulated injuries, look-alikes, contrast phases and "
    "scanners. No image of an injured real patient was used.",
    "Simulated injuries are simpler than real ones: expect less on real patients.",
    "The label map s0011 serves both calibration and test patients.",
]
ATTRIBUTION = [
    "Anatomies s0327, s0328 and s0011: TotalSegmentator data set (CC BY 4.0).",
    "CT plain_trunk_3mm: TotalSegmentator test files (Apache-2.0).",
    "CT portal_abdomen_b: TCIA TCGA-COAD (CC BY 3.0).",
]


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
STEPS = {"localiser_1": 600, "localiser": 900, "trunk": 400, "volume": 1500}
MEMBER_EPOCHS = 12  # at most


def say(text: str) -> None:
    print(text, flush=True)


def step(name: str, share: float) -> None:
    """Progress of a long stage."""
    say(f"{name} ({share:.0%})")


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
    joint.load_state_dict(trained_weights(work / "trunk.pt"))
    joint.eval()
    shared = split(joint.net, SHARED)[0]
    heads = joint.net.classifier[1]
    assert isinstance(heads, torch.nn.Linear)  # noqa: S101 - narrows the type
    where = _split(people)
    for i, target in enumerate(TARGETS):
        out = work / f"members_{target.value}.pt"
        if out.exists():
            continue
        chosen = features.choose([s for s in known if s.target is target], seed=i)
        say(f"{target.value}: {len(chosen)} slices, {sum(s.label for s in chosen)} with lesion")
        device = choose_device("auto")
        cached = features.build(
            work / "features", shared, people, chosen, size=SIZE, seed=7, device=device, tell=step
        )
        tails = members.train_members(
            target.value,
            cached,
            where,
            lambda k, t=target: fresh_tail(joint.net, SHARED, t, heads),  # type: ignore[misc]
            work / "members" / target.value,
            members.Recipe(epochs=MEMBER_EPOCHS),
            seed=i,
            log=say,
        )
        save_weights(out, {"members": [tail.state_dict() for tail in tails]})


def _split(people: Sequence[cache.Entry]) -> Split:
    return make_split([_patient(e) for e in people], TARGETS, folds=FOLDS, calibration=0, seed=5)


def train_sequence(work: Path) -> None:
    """Sequence heads on what the out-of-fold members saw; kept where they beat plain pooling."""
    where = _split(samples(work)[0])

    def fold_of(target: Target, person: str) -> int | None:
        return next((k for k in range(FOLDS) if where.holds_out(person, k)), None)

    write_draft(work, heads=False)
    studies = sequence.collect(entries(work, "train"), load_draft(work), fold_of, log=say)
    heads, compared = sequence.train_heads(studies, work / "sequence", log=say)
    sequence.save_heads(work / "sequence.pt", heads, compared)


def _patient(entry: cache.Entry) -> Patient:
    """What the folds need to know of a cached patient."""
    grades = {t: entry.grade(t) for t in TARGETS}
    injured = any(grades.values())
    return Patient(entry.patient_id, grades, injured, entry.person, True, None, ())


def load_trained(work: Path) -> tuple[Localiser, SliceEnsembles, VolumeNet]:
    """The trained networks of a work folder."""
    find, whole, joint = Localiser(), VolumeNet(), JointSliceNet()
    for net, name in ((find, "localiser"), (whole, "volume"), (joint, "trunk")):
        net.load_state_dict(trained_weights(work / f"{name}.pt"))
    ensembles = SliceEnsembles(FOLDS)
    ensembles.trunk.load_state_dict(split(joint.net, SHARED)[0].state_dict())
    for target in TARGETS:
        trained = read_weights(work / f"members_{target.value}.pt")["members"]
        for tail, weights in zip(ensembles.of(target), trained, strict=True):
            tail.load_state_dict(weights)
    for trained in (find, ensembles, whole):
        trained.eval().requires_grad_(False)
    return find, ensembles, whole


def write_draft(work: Path, *, heads: bool = True) -> Path:
    """A bundle with neutral cutoffs: what the calibration patients are scored with."""
    find, ensembles, whole = load_trained(work)
    return assemble.write(
        work / "draft",
        version="0",
        localiser=find,
        slices=ensembles,
        volume=whole,
        sequence=sequence.load_heads(work / "sequence.pt") if heads else None,
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
    fitted = fit_table(
        from_rows([*_scores(work, "cal"), *_scores(work, "well")]),
        calibrated_on="simulated",
        prevalence=natural(),
    )
    table = fitted.cutoffs
    judged = judge_with_bundle(from_rows(_scores(work, "test")), table)
    metrics = write_evaluation(
        work / "evaluation",
        judged,
        natural(),
        {
            "cutoffs": table.to_dict(),
            "calibration": {
                "patients": fitted.patients,
                "healthy": fitted.healthy,
                "positives": {t.value: n for t, n in fitted.positives.items()},
            },
            "fusion": {t.value: text for t, text in fitted.fusion.items()},
            "scored": "on simulated patients with other seeds, on anatomies that trained nothing",
            "localiser_dice": assemble.mean_dice(work / "scores/test_dice.csv"),
            "published_auc": PUBLISHED_AUC,
        },
    )
    provenance: dict[str, Any] = {
        "command": "python -m triage.training.reference",
        "sets": {k: vars(v) for k, v in SETS.items()},
        "train_patients": len(entries(work, "train")),
        "slice_patients": len(samples(work)[0]),
        "steps": STEPS,
        "folds": FOLDS,
        "initial_weights": "MobileNetV2 1.0 224, ImageNet (Apache-2.0)",
        "data": DATA,
        "attribution": ATTRIBUTION,
    }
    find, ensembles, whole = load_trained(work)
    card = model_card("reference", version, metrics, provenance)
    assemble.write(
        out,
        version=version,
        localiser=find,
        slices=ensembles,
        volume=whole,
        sequence=sequence.load_heads(work / "sequence.pt"),
        cutoffs=table,
        provenance=provenance,
        card=card,
        extra={
            f"evaluation/{name}": (work / "evaluation" / name).read_bytes()
            for name in ("metrics.json", "index.html")
        },
    )
    say(f"wrote {reference(find_bundle(out))} {read_manifest(out).version}")


def _scores(work: Path, name: str) -> list[scoring.Row]:
    """Scores of a set; patients carry its name, because every set counts its patients from 0."""
    rows = scoring.read(work / "scores" / f"{name}.csv")
    return [
        {**r, "patient_id": f"{name}/{r['patient_id']}", "person": f"{name}/{r['person']}"}
        for r in rows
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    stages = ("sets", "localiser", "trunk", "members", "volume", "sequence", "score", "finish")
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
            trunk.train_trunk(*samples(a.work), a.weights, a.work, steps=STEPS[stage], log=say)
        elif stage == "members":
            train_members(a.work)
        elif stage == "volume":
            volume.train(entries(a.work, "train"), a.work, steps=STEPS[stage], log=say)
        elif stage == "sequence":
            train_sequence(a.work)
        elif stage == "score":
            write_draft(a.work)
            score_sets(a.work, ("cal", "well", "test"))
        elif stage == "finish":
            finish(a.work, a.out, a.version)
        else:
            parser.error(f"unknown stage {stage!r}: expected some of {', '.join(stages)}")


if __name__ == "__main__":
    main()
