"""What a trained bundle says of itself: evaluation, provenance, model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triage import __version__
from triage.decision.auc import auc
from triage.decision.scores import from_rows
from triage.inference.networks import Networks
from triage.nets.bundle import reference
from triage.training import assemble
from triage.training.card import model_card
from triage.training.evaluation.judged import judge_with_bundle
from triage.training.evaluation.write import write_evaluation
from triage.training.folds import SPLITS, TRAIN_ONLY
from triage.training.job import Found, Job
from triage.training.layout_tables import CALIBRATION
from triage.training.start import Start


def write_trained(job: Job, begin: Start, nets: Networks, found: Found) -> Path:
    """Evaluation, card, provenance and the bundle."""
    provenance = _provenance(job, begin, found)
    extra = _evaluation(job, found)
    extra[SPLITS] = assemble.to_json(job.split.to_dict())
    version = f"{__version__}+{job.split.sha256[:8]}"
    metrics = json.loads(extra["evaluation/metrics.json"])
    place = assemble.write(
        job.out,
        name=_plain(job.out.name),
        version=version,
        localiser=nets.localiser,
        slices=nets.slices.cpu(),
        volume=nets.volume,
        sequence=nets.sequence,
        cutoffs=found.table,
        provenance=provenance,
        card=model_card(_plain(job.out.name), version, metrics, provenance),
        extra=extra,
    )
    ref = reference(place)
    job.log(
        f"wrote {job.out}: {ref.name} {ref.version}, calibrated on {ref.calibrated_on} patients"
    )
    return place


def _plain(name: str) -> str:
    """A folder's name as the bundle's: letters, digits and . _ + - only."""
    text = "".join(c if c.isalnum() or c in "._+-" else "-" for c in name)[:64].lstrip("._+-")
    return text or "bundle"


def _provenance(job: Job, begin: Start, found: Found) -> dict[str, Any]:
    places = list(job.split.where.values())
    positives = {
        t.value: sum(p.grades.get(t, 0) > 0 for p in job.data.patients) for t in job.data.targets
    }
    kinds = {"volumes": sum(e.is_volume for e in job.entries)}
    kinds["single images"] = len(job.entries) - kinds["volumes"]
    options = {k: v for k, v in vars(job.options).items() if k not in ("targets", "init")}
    return {
        "command": "triage train",
        "program": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "targets": [t.value for t in job.options.targets],
        "options": json.loads(json.dumps(options, default=str)),
        "patients": len({e.patient_id for e in job.entries}),
        "simulated_patients": len({e.patient_id for e in job.entries if e.simulated}),
        "positives": positives,
        "series": kinds,
        "series_left_out": len(job.left_out),
        "data": _data(job),
        "notes": [*(n.split(":")[0] for n in job.data.notes), *found.certified.notes],  # no names
        "initial_weights": begin.source,
        "split": {
            "sha256": job.split.sha256,
            "calibration": places.count(CALIBRATION),
            "train_only": places.count(TRAIN_ONLY),
            "folds": [places.count(k) for k in range(job.split.folds)],
        },
        "refitted": [t.value for t in found.refitted],
        "kept": [t.value for t in found.table.targets if t not in found.refitted],
    }


def _data(job: Job) -> list[str]:
    """What the card says of the patients."""
    patients = {e.patient_id: e.simulated for e in job.entries}
    simulated = sum(patients.values())
    places = list(job.split.where.values())
    return [
        f"{len(patients)} patients, {simulated} of them simulated; {len(job.entries)} series, "
        f"{sum(not e.is_volume for e in job.entries)} of them single images.",
        f"{places.count(CALIBRATION)} persons were kept for calibration; the others trained in"
        f" {job.split.folds} folds by person.",
    ]


def _evaluation(job: Job, found: Found) -> dict[str, bytes]:
    """Metrics on out-of-fold scores, plots, learning curves: file in the bundle -> content."""
    place = job.work / "evaluation"
    shutil.rmtree(place, ignore_errors=True)
    extra = {
        "cutoffs": found.table.to_dict(),
        "fusion": {t.value: text for t, text in found.certified.fusion.items()},
        "sequence_heads": {t.value: c.said for t, c in found.compared.items()},
        "scored": "out of fold: each patient by the member that did not train on him or her",
        "calibration": _calibration(job, found),
    }
    if found.out_of_fold:
        judged = judge_with_bundle(from_rows(found.out_of_fold), found.certified.table)
        write_evaluation(place, judged, extra=extra)
    else:
        place.mkdir(parents=True)
        (place / "metrics.json").write_bytes(assemble.to_json({"targets": {}, **extra}))
    for picture in sorted(job.work.glob("members/*/*/*.png")):
        shutil.copy(picture, place / f"curve_{picture.name}")
    for picture in found.curves:
        shutil.copy(picture, place / f"curve_{picture.name}")
    for name in job.options.networks:
        for picture in sorted((job.work / name).glob("*.png")):
            shutil.copy(picture, place / f"curve_{picture.name}")
    return assemble.files_of(place)


def _calibration(job: Job, found: Found) -> dict[str, Any]:
    """Who calibrated, and the AUC of the final ensembles there (order is not fitted to them)."""
    rows = found.calibration
    patients = {str(r["patient_id"]) for r in rows}
    positives = {
        t.value: len({str(r["patient_id"]) for r in rows if r["target"] == t.value and r["label"]})
        for t in found.refitted
    }
    out: dict[str, Any] = {"patients": len(patients), "healthy": 0, "positives": positives}
    if rows:
        table = from_rows(rows)
        out |= {"healthy": int(table.healthy.sum()), "healthy_means": table.healthy_means}
        scores = judge_with_bundle(table, found.certified.table).scores
        labels = table.labels
        seen = ~np.isnan(scores) & ~np.isnan(labels)
        out["auc"] = {
            t.value: auc(scores[seen[:, i], i], labels[seen[:, i], i])
            for i, t in enumerate(table.targets)
        }
        out["auc"] = {k: None if np.isnan(v) else round(v, 4) for k, v in out["auc"].items()}
    return out
