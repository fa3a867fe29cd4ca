"""From trained networks and scores to a bundle: cutoffs, metrics, model card."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from triage.decision.calibration import Calibration, fit_calibration
from triage.decision.cutoffs import fit_cutoffs
from triage.decision.fusion import ENSEMBLE_ONLY, Fusion
from triage.decision.table import CutoffTable, TargetCutoffs
from triage.inference.crops import LOW_HU, STEP, VIEWS
from triage.nets.bundle_writer import write_bundle
from triage.nets.localiser import Localiser
from triage.nets.slice_net import SHARED, SliceEnsembles
from triage.nets.volume_net import VolumeNet
from triage.simulate.plan import JOINT
from triage.training.cache import SPACING
from triage.training.scoring import Row
from triage.types import TARGETS, Cutoff, Organ, Target

Floats = NDArray[np.float64]
# Half and half, chosen beforehand: no patient is spent on fitting it.
EQUAL = Fusion(ensemble=0.5, volume=0.5)


def prevalence() -> dict[Target, float]:
    """Share of patients with each injury in the simulator's case plan."""
    total = sum(JOINT.values())
    return {
        t: sum(n for case, n in JOINT.items() if case[i]) / total for i, t in enumerate(TARGETS)
    }


def table_of(
    rows: Sequence[Row], fusion: Mapping[Target, Fusion]
) -> tuple[Floats, Floats, list[str]]:
    """Fused logits and labels (patients, targets), NaN where not assessed, and patient names."""
    names = sorted({str(r["patient_id"]) for r in rows})
    logits = np.full((len(names), len(TARGETS)), np.nan)
    labels = np.zeros_like(logits)
    where = {n: i for i, n in enumerate(names)}
    filled = set()
    for r in rows:
        target = Target(str(r["target"]))
        i, t = where[str(r["patient_id"])], TARGETS.index(target)
        if (i, t) in filled:
            raise ValueError(
                f"Expected one row a patient and target, got two: {names[i]}, {target}"
            )
        filled.add((i, t))
        labels[i, t] = float(r["label"])
        if float(r["assessed"]):
            logits[i, t] = fusion[target].apply(float(r["ensemble"]), float(r["volume"]))
    return logits, labels, names


def weights_to_prevalence(labels: Floats, wanted: float) -> Floats:
    """Weights that bring a sample's share of positives to the wanted prevalence; mean 1."""
    share = float(labels.mean())
    return np.where(labels == 1, wanted / share, (1 - wanted) / (1 - share))


def fit_table(rows: Sequence[Row]) -> CutoffTable:
    """Calibration and cutoffs from patients that trained and selected nothing."""
    fusion = dict.fromkeys(TARGETS, EQUAL)
    logits, labels, _ = table_of(rows, fusion)
    natural = prevalence()
    probabilities = np.full_like(logits, np.nan)
    calibrations: dict[Target, Calibration] = {}
    for t, target in enumerate(TARGETS):
        seen = ~np.isnan(logits[:, t])
        weights = weights_to_prevalence(labels[seen, t], natural[target])
        calibrations[target] = fit_calibration(logits[seen, t], labels[seen, t], weights)
        probabilities[seen, t] = calibrations[target].apply(logits[seen, t])
    fitted = fit_cutoffs(probabilities, labels)
    return CutoffTable(
        "simulated",
        {
            target: TargetCutoffs(
                calibrations[target],
                fitted.rule_out[t],
                fitted.rule_in[t],
                natural[target],
                fusion[target],
            )
            for t, target in enumerate(TARGETS)
        },
    )


def neutral_table() -> CutoffTable:
    """Cutoffs of a draft that has not been calibrated: nothing is ruled out."""
    natural = prevalence()
    return CutoffTable(
        "simulated",
        {
            t: TargetCutoffs(
                Calibration(1.0, 0.0),
                Cutoff(0.0, sensitivity_lower_bound=0.0, positives=0),
                Cutoff(0.5),
                natural[t],
                EQUAL,
            )
            for t in TARGETS
        },
    )


def counts(rows: Sequence[Row]) -> dict[str, Any]:
    """Patients, positives of each target and healthy patients of a score table."""
    labels = table_of(rows, dict.fromkeys(TARGETS, EQUAL))[1]
    positives = {t.value: int(labels[:, i].sum()) for i, t in enumerate(TARGETS)}
    healthy = int((labels.sum(1) == 0).sum())
    return {"patients": len(labels), "healthy": healthy, "positives": positives}


def mean_dice(path: Path) -> dict[str, float]:
    """Mean Dice of each organ in a table of `scoring.score_all`."""
    rows = list(csv.DictReader(path.open(newline="")))
    out = {}
    for organ in Organ:
        values = [float(r[organ.value]) for r in rows if r[organ.value]]
        if values:
            out[organ.value] = round(float(np.mean(values)), 4)
    return out


def auc(scores: Floats, labels: Floats) -> float:
    """Area under the ROC curve (Mann-Whitney); NaN without both classes."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not len(positive) or not len(negative):
        return float("nan")
    above = (positive[:, None] > negative[None]).mean()
    return float(above + 0.5 * (positive[:, None] == negative[None]).mean())


def interval(
    scores: Floats, labels: Floats, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """95 % interval of the AUC by bootstrap over patients."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        pick = rng.integers(0, len(scores), len(scores))
        values.append(auc(scores[pick], labels[pick]))
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def metrics(rows: Sequence[Row], cutoffs: CutoffTable) -> dict[str, Any]:
    """Test metrics of every target and branch, at both cutoffs."""
    out: dict[str, Any] = {"targets": {}}
    for target in TARGETS:
        entry = cutoffs.targets[target]
        own = [r for r in rows if r["target"] == target.value and float(r["assessed"])]
        labels = np.array([float(r["label"]) for r in own])
        ensemble = np.array([float(r["ensemble"]) for r in own])
        volume = np.array([float(r["volume"]) for r in own])
        fusion = entry.fusion or ENSEMBLE_ONLY
        fused = np.array([fusion.apply(e, v) for e, v in zip(ensemble, volume, strict=True)])
        p = entry.calibration.apply(fused)
        low, high = interval(fused, labels)
        rule_out, rule_in = p >= entry.rule_out.cutoff, p >= entry.rule_in.cutoff
        grades = np.array([float(r["grade"]) for r in own])
        result = {
            "patients": len(own),
            "positives": int(labels.sum()),
            "auc": {"value": auc(fused, labels), "low": low, "high": high},
            "auc_slices": auc(ensemble, labels),
            "auc_volume": auc(volume, labels),
            "auc_high_grade": auc(fused[grades != 1], (grades[grades != 1] == 2).astype(float)),
            "rule_out": _rates(rule_out, labels),
            "rule_in": _rates(rule_in, labels),
        }
        out["targets"][target.value] = _rounded(result)
    return out


def _rates(flagged: NDArray[np.bool_], labels: Floats) -> dict[str, float]:
    return {
        "sensitivity": float(flagged[labels == 1].mean()),
        "specificity": float((~flagged[labels == 0]).mean()),
        "accuracy": float((flagged == (labels == 1)).mean()),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 4)
    return value


def write(
    folder: Path,
    *,
    version: str,
    localiser: Localiser,
    slices: SliceEnsembles,
    volume: VolumeNet,
    cutoffs: CutoffTable,
    provenance: Mapping[str, Any],
    card: str,
    extra: Mapping[str, bytes],
) -> Path:
    """Write the bundle with fp16 weights."""
    nets: dict[str, nn.Module] = {"localiser": localiser, "slices": slices, "volume": volume}
    skip = "num_batches_tracked"
    tensors = {
        f"{name}.safetensors": {k: v for k, v in net.state_dict().items() if skip not in k}
        for name, net in nets.items()
    }
    networks = {
        "localiser": {**localiser.architecture, "file": "localiser.safetensors"},
        "slices": {
            "kind": "MobileNetV2",
            "members": slices.members,
            "shared": SHARED,
            "padding": slices.padding,
            "file": "slices.safetensors",
        },
        "volume": {**volume.architecture, "file": "volume.safetensors"},
    }
    preprocessing = {
        "working_spacing_mm": list(SPACING),
        "slice_step": STEP,
        "low_hu": LOW_HU,
        "views": {
            t.value: [{"field_mm": v.field_mm, "high_hu": v.high_hu} for v in VIEWS[t]]
            for t in TARGETS
        },
    }
    return write_bundle(
        folder,
        name="reference",
        version=version,
        calibrated_on="simulated",
        prevalence=prevalence(),
        networks=networks,
        preprocessing=preprocessing,
        tensors=tensors,
        cutoffs=cutoffs.to_dict(),
        provenance=provenance,
        card=card,
        extra=extra,
        half=True,
        overwrite=True,
    )


def to_json(data: Any) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()
