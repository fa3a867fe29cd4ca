"""The last stage of a bundle: cutoffs, what it is worth, model card, and the bundle itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triage.decision.fit import fit_table
from triage.decision.scores import from_rows
from triage.nets.bundle import find_bundle, read_manifest, reference
from triage.simulate.protocol import LATEST
from triage.training import assemble, scoring, sequence
from triage.training.cache import Entry
from triage.training.card import PUBLISHED_ACCURACY, PUBLISHED_AUC, model_card
from triage.training.evaluation.judged import judge_with_bundle
from triage.training.evaluation.prevalence import natural
from triage.training.evaluation.write import write_evaluation
from triage.training.recipe import (
    AGAIN,
    LOCALISER_AGAIN,
    VOLUME_AGAIN,
    VOLUME_DEEP,
    VOLUME_FOUND,
    Recipe,
    entries,
    load_trained,
    say,
)
from triage.types import TARGETS

DATA = [
    "Simulated patients only: parametric people, label maps of two real people and two real CTs "
    "without injury as backgrounds, with simulated injuries, look-alikes, contrast phases and "
    "scanners. No image of an injured real patient was used.",
    "Simulated injuries are simpler than real ones: expect less on real patients.",
    "Fusion was fitted on persons that trained and selected nothing.",
]
ATTRIBUTION = [
    "Anatomies s0327 (training), s0328 (calibration), s0011 (test): TotalSegmentator (CC BY 4.0).",
    "CT plain_trunk_3mm: TotalSegmentator test files (Apache-2.0).",
    "CT portal_abdomen_b: TCIA TCGA-COAD (CC BY 3.0).",
]


# Stages that train, by the file that each leaves in the work folder.
TRAINED = {
    "localiser": "localiser.pt",
    LOCALISER_AGAIN: f"{LOCALISER_AGAIN}.pt",
    "trunk": "trunk.pt",
    AGAIN: f"{AGAIN}.pt",
    "members": f"members_{TARGETS[0].value}.pt",
    "volume": "volume.pt",
    VOLUME_AGAIN: f"{VOLUME_AGAIN}.pt",
    VOLUME_FOUND: f"{VOLUME_FOUND}.pt",
    VOLUME_DEEP: f"{VOLUME_DEEP}.pt",
    "sequence": "sequence.pt",
}
# W: a work folder; DATA: backgrounds and anatomies; IMAGENET: weights of MobileNetV2; BASE: the
# bundle that gave the networks which W has not trained; OUT: the bundle.
COMMANDS = [
    "python -m triage.training.reference sets {stages} --work W --data DATA{given}",
    "python -m triage.training.reference judged score --judged {judged} --work W --data DATA{base}",
    "scripts/real-slices W/draft --data RSNA_2023 --json W/real.json",
    "python -m triage.training.ablation --set W/sets/train --work W/ablations --weights IMAGENET",
    "python -m triage.training.reference finish --work W --out OUT --version {version}{base}",
    "scripts/engine-agreement OUT --engine rounded --reference openvino --set W/sets/judged"
    " --out W/agreement",
    "scripts/saliency-report --model OUT --set W/sets/judged --out W/saliency",
    "scripts/real-ct OUT --data DATA/ct --json W/real_ct.json",
    "python -m triage.training.amend OUT --version {version} --agreement"
    " W/agreement/agreement.json --saliency W/saliency/saliency.json --real-ct W/real_ct.json"
    " --ablations W/ablations/ablations.json",
]


def finish(work: Path, recipe: Recipe, out: Path, version: str, notes: Sequence[str] = ()) -> None:
    """Cutoffs from the calibration sets, metrics from the test set, card, bundle.

    `notes`: sentences for the model card, such as which commit trained what.
    """
    nets = load_trained(work, recipe)
    fitted = fit_table(
        from_rows([*_scores(work, "cal"), *_scores(work, "well")]),
        calibrated_on="simulated",
        prevalence=natural(),
        out_of_fold=from_rows(_scores(work, "fuse")),
    )
    table = fitted.cutoffs
    judged = judge_with_bundle(from_rows(_scores(work, "judged")), table)
    metrics = write_evaluation(
        work / "evaluation",
        judged,
        natural(),
        {
            "cutoffs": table.to_dict(),
            "calibration": {
                "patients": fitted.patients,
                "healthy": fitted.healthy,
                "healthy_means": fitted.healthy_means,
                "positives": {t.value: n for t, n in fitted.positives.items()},
            },
            "fusion": {t.value: text for t, text in fitted.fusion.items()},
            "sequence_heads": _said_of_heads(work, nets.taken, recipe.base),
            "scored": f"on {_numbers(entries(work, 'judged'))} of the frozen test protocol"
            f" {LATEST}: seeds and anatomies that trained nothing",
            "localiser_dice": assemble.mean_dice(work / "scores/judged_dice.csv"),
            "published_auc": PUBLISHED_AUC,
            "published_accuracy": PUBLISHED_ACCURACY,
            **measured_beside(work),
        },
    )
    provenance = provenance_of(
        work, recipe, nets.taken, version, judged=len(entries(work, "judged")), notes=notes
    )
    card = model_card("reference", version, metrics, provenance)
    assemble.write(
        out,
        version=version,
        localiser=nets.localiser,
        slices=nets.slices,
        volume=nets.volume,
        sequence=nets.sequence,
        cutoffs=table,
        provenance=provenance,
        card=card,
        extra={
            f"evaluation/{name}": (work / "evaluation" / name).read_bytes()
            for name in ("metrics.json", "index.html")
        },
    )
    say(f"wrote {reference(find_bundle(out))} {read_manifest(out).version}")


# Figures of commands of their own, left in the work folder for the model card.
BESIDE = {
    "ablations": "ablations/ablations.json",  # python -m triage.training.ablation
    "real": "real.json",  # scripts/real-slices WORK/draft --json WORK/real.json
}


def measured_beside(work: Path) -> dict[str, Any]:
    """What `BESIDE` names, as far as it is there; the card says nothing of what is not."""
    return {k: json.loads((work / v).read_text()) for k, v in BESIDE.items() if (work / v).exists()}


def provenance_of(
    work: Path,
    recipe: Recipe,
    taken: Sequence[str],
    version: str,
    *,
    judged: int,
    notes: Sequence[str],
) -> dict[str, Any]:
    """How the bundle was made, for bundle.json: commands, sets, steps; `taken`: from its base."""
    trained = [stage for stage, file in TRAINED.items() if (work / file).exists()]
    return {
        "commands": [
            line.format(
                stages=" ".join(trained),
                given=" --base BASE" if taken else " --weights IMAGENET",
                base=" --base BASE" if taken else "",
                judged=judged,
                version=version,
            )
            for line in COMMANDS
        ],
        "base": _given(taken, recipe.base),
        "notes": list(notes),
        "sets": {k: vars(v) for k, v in recipe.sets.items()},
        "without": list(recipe.without),
        "train_patients": len(list((work / "sets/train").glob("*/meta.json"))),
        "persons": {
            "train": recipe.trains,
            "localiser, first round of the trunk, later ones of the volume net": recipe.early,
            "choose": recipe.sets["train"].people - recipe.learn,
        },
        "steps": {stage: n for stage, n in recipe.steps.items() if stage in trained},
        "folds": recipe.folds,
        "initial_weights": "MobileNetV2 1.0 224, ImageNet (Apache-2.0)",
        "data": DATA,
        "attribution": ATTRIBUTION,
    }


def _numbers(judged: Sequence[Entry]) -> str:
    """Which patients of the protocol there are: the first ones, and injured ones beyond them."""
    numbers = sorted(int(e.folder.name.removeprefix("j")) for e in judged)
    whole = next((i for i, n in enumerate(numbers) if i != n), len(numbers))
    if whole == len(numbers):
        return f"the first {whole} patients"
    return (
        f"{len(numbers)} patients (the first {whole}, and {len(numbers) - whole} injured ones"
        f" among those up to number {numbers[-1] + 1})"
    )


def _given(taken: Sequence[str], base: Path | None) -> dict[str, Any]:
    """Which networks come from another bundle, and what that one was made from."""
    if not taken or base is None:
        return {}
    manifest = read_manifest(base)
    return {
        "bundle": f"{manifest.name} {manifest.version} ({reference(base).sha256[:12]})",
        "networks": list(taken),
        "provenance": manifest.provenance,
    }


def _said_of_heads(work: Path, taken: Sequence[str], base: Path | None) -> dict[str, str]:
    if base is None or "sequence" not in taken:
        return sequence.said(work / "sequence.pt")
    metrics = json.loads((base / "evaluation/metrics.json").read_text())
    told: dict[str, str] = metrics.get("sequence_heads", {})
    return told


def _scores(work: Path, name: str) -> list[scoring.Row]:
    """Scores of a set; patients carry its name, because every set counts its patients from 0."""
    rows = scoring.read(work / "scores" / f"{name}.csv")
    return [
        {**r, "patient_id": f"{name}/{r['patient_id']}", "person": f"{name}/{r['person']}"}
        for r in rows
    ]
