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
from triage.training.amend import with_margins
from triage.training.card import PUBLISHED_ACCURACY, PUBLISHED_AUC, model_card
from triage.training.evaluation.judged import judge_with_bundle
from triage.training.evaluation.prevalence import natural
from triage.training.evaluation.write import write_evaluation
from triage.training.recipe import Recipe, entries, load_trained, say

DATA = [
    "Simulated patients only: parametric people, label maps of two real people and two real CTs "
    "without injury as backgrounds, with simulated injuries, look-alikes, contrast phases and "
    "scanners. No image of an injured real patient was used.",
    "Simulated injuries are simpler than real ones: expect less on real patients.",
    "Fusion was fitted on persons that trained nothing; they stopped trainings early, too.",
]
ATTRIBUTION = [
    "Anatomies s0327 (training), s0328 (calibration), s0011 (test): TotalSegmentator (CC BY 4.0).",
    "CT plain_trunk_3mm: TotalSegmentator test files (Apache-2.0).",
    "CT portal_abdomen_b: TCIA TCGA-COAD (CC BY 3.0).",
]


# W: a work folder; DATA: backgrounds and anatomies; IMAGENET: weights of MobileNetV2.
COMMANDS = [
    "python -m triage.training.reference sets localiser trunk trunk_again members volume \\",
    "    volume_again sequence --work W --data DATA --weights IMAGENET",
    "python -m triage.training.reference judged score --judged {judged} --work W --data DATA",
    "scripts/real-slices W/draft --data RSNA_2023 --json W/real.json",
    "python -m triage.training.ablation --set W/sets/train --work W/ablations --weights IMAGENET",
    "python -m triage.training.reference finish --work W",
]


def finish(work: Path, recipe: Recipe, out: Path, version: str, notes: Sequence[str] = ()) -> None:
    """Cutoffs from the calibration sets, metrics from the test set, card, bundle.

    `notes`: sentences for the model card, such as which commit trained what.
    """
    fitted = fit_table(
        from_rows([*_scores(work, "cal"), *_scores(work, "well")]),
        calibrated_on="simulated",
        prevalence=natural(),
        out_of_fold=from_rows(_scores(work, "choose")),
    )
    beside = measured_beside(work)
    table = fitted.cutoffs
    if "engines" in beside:
        table = with_margins(table, beside["engines"])
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
            "sequence_heads": sequence.said(work / "sequence.pt"),
            "scored": f"on the first {len(entries(work, 'judged'))} patients of the frozen test"
            f" protocol {LATEST}: seeds and anatomies that trained nothing",
            "localiser_dice": assemble.mean_dice(work / "scores/judged_dice.csv"),
            "published_auc": PUBLISHED_AUC,
            "published_accuracy": PUBLISHED_ACCURACY,
            **beside,
        },
    )
    provenance: dict[str, Any] = {
        "commands": [line.format(judged=len(entries(work, "judged"))) for line in COMMANDS],
        "notes": list(notes),
        "sets": {k: vars(v) for k, v in recipe.sets.items()},
        "train_patients": len(entries(work, "train")),
        "persons": {
            "train": recipe.learn,
            "localiser and first round of the trunk": recipe.early,
            "choose": recipe.sets["train"].people - recipe.learn,
        },
        "steps": dict(recipe.steps),
        "folds": recipe.folds,
        "initial_weights": "MobileNetV2 1.0 224, ImageNet (Apache-2.0)",
        "data": DATA,
        "attribution": ATTRIBUTION,
    }
    find, ensembles, whole = load_trained(work, recipe.folds)
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


# Figures of commands of their own, left in the work folder for the model card.
BESIDE = {
    "ablations": "ablations/ablations.json",  # python -m triage.training.ablation
    "engines": "agreement/agreement.json",  # scripts/engine-agreement WORK/draft
    "real": "real.json",  # scripts/real-slices WORK/draft --json WORK/real.json
}


def measured_beside(work: Path) -> dict[str, Any]:
    """What `BESIDE` names, as far as it is there; the card says nothing of what is not."""
    return {k: json.loads((work / v).read_text()) for k, v in BESIDE.items() if (work / v).exists()}


def _scores(work: Path, name: str) -> list[scoring.Row]:
    """Scores of a set; patients carry its name, because every set counts its patients from 0."""
    rows = scoring.read(work / "scores" / f"{name}.csv")
    return [
        {**r, "patient_id": f"{name}/{r['patient_id']}", "person": f"{name}/{r['person']}"}
        for r in rows
    ]
