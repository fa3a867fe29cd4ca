"""Do the explanations of a bundle point at the injury? Patients with lesion masks are asked.

One row an injured target of a patient: for each method whether its map points at the lesion and how
much of it lies there; whether a key slice crosses the lesion; and for true positives (suspected,
and injured) what is left of the score without the voxels that the map names. Measures and their
sources: `triage.saliency.checks`.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from triage.decision.table import CutoffTable
from triage.decision.verdicts import decide
from triage.inference.engines.torch_engine import TorchEngine
from triage.inference.networks import Networks
from triage.inference.programs import Programs
from triage.inference.score import gather, organ_mask, to_score
from triage.saliency import checks
from triage.saliency.attribution import explain, place_logits, surroundings
from triage.saliency.explain import key_slices, speaks_for
from triage.saliency.methods import Captum
from triage.saliency.names import Method
from triage.training.cache import Entry
from triage.training.cases import Case, Seen, case_of, look
from triage.types import TARGET_ORGANS, TARGETS, Anatomy, Finding, Series, Target, Verdict, Volume

Row = dict[str, Any]

# The default map drawn from one branch alone, beside the methods: weights of slices, volume net.
ALONE = {"slices alone": (1.0, 0.0), "volume net alone": (0.0, 1.0)}


@dataclass(frozen=True)
class Asked:
    """What is asked of a patient. `dear`: methods that take their time, of positives below `dear_n`
    a target; `random`: networks with shuffled weights, of positives below `random_n` a target."""

    nets: Networks
    table: CutoffTable
    dear: Sequence[Method] = ()
    dear_n: int = 0
    random: Networks | None = None
    random_n: int = 0
    deletion: bool = True


@dataclass
class Met:
    """A positive: everything about one injured target of one patient, on the working grid."""

    target: Target
    case: Case
    seen: Seen
    anatomy: Anatomy
    grid: MetaTensor
    lesion: Tensor  # (X, Y, Z) bool
    grown: Tensor
    near: Tensor
    weights: tuple[float, float]
    maps: dict[str, Tensor] = field(default_factory=dict)  # method -> (X, Y, Z)
    keys: tuple[int, ...] = ()  # slices of the grid
    speaks_for: float = 0.0  # see `signed`


def lesion_of(entry: Entry, target: Target) -> Tensor:
    """Mask (X, Y, Z) of a target's lesions in a cached patient."""
    bits = torch.from_numpy(np.array(entry.labels[1])).permute(2, 1, 0)
    return ((bits >> TARGETS.index(target)) & 1).bool()


def positives(entry: Entry) -> list[Target]:
    """Injured targets of a patient."""
    return [t for t in TARGETS if entry.labelled(t) and entry.grade(t) > 0]


def judge_patient(
    entry: Entry,
    asked: Asked,
    counts: dict[Target, int],
    show: Callable[[Met, Row], None] | None = None,
) -> list[Row]:
    """A row for each injured target that was assessed. `counts`: positives so far, by target;
    `show` sees each positive."""
    case = case_of(entry)
    began = time.monotonic()
    seen = look(case, asked.nets)
    looked_s = time.monotonic() - began
    rows = []
    for target in positives(entry):
        met = _meet(entry, case, seen, target, asked)
        if met is None:
            continue
        row = judge(met, asked, counts.get(target, 0))
        counts[target] = counts.get(target, 0) + 1
        rows.append({"patient": entry.patient_id, **row, "looked_s": round(looked_s, 2)})
        if show is not None:
            show(met, row)
    return rows


def _meet(entry: Entry, case: Case, seen: Seen, target: Target, asked: Asked) -> Met | None:
    """None where the target was not assessed, or the patient has no mask of it."""
    anatomy, grid, lesion = seen.anatomy, case.grid, lesion_of(entry, target)
    if anatomy is None or grid is None or seen.scope is None or not bool(lesion.any()):
        return None
    if target in seen.scope.not_assessed or to_score(target, seen.evidence, grid) is None:
        return None
    found = surroundings(anatomy, target, seen.evidence.tissue)
    if found is None:
        return None
    near = torch.zeros_like(lesion)
    near[found[0]] = found[2]
    spacing = [float(mm) for mm in grid.pixdim]
    weights = asked.table.branch_weights(target)
    grown = checks.grown_lesion(lesion, spacing)
    return Met(target, case, seen, anatomy, grid, lesion, grown, near, weights)


def judge(met: Met, asked: Asked, number: int) -> Row:
    """The row of one positive, the `number`th of its target."""
    logit = fused(met, asked, met.grid)
    finding = _finding(met.target, logit, asked.table)
    suspected, met.speaks_for = finding.flagged, speaks_for(finding, asked.table)
    row: Row = {
        "target": met.target.value,
        "logit": round(logit, 4),
        "true_positive": suspected,
        "lesion_ml": round(float(met.lesion.sum()) * _voxel_ml(met.grid), 3),
        "reached": bool((met.lesion & met.near).any()),
        "chance": checks.chance(met.grown, met.near),
        "chance_body": checks.chance(met.grown, _tissue(met)),
        "centre": checks.centre_hits(met.anatomy, met.target, met.grown),
        "methods": {},
    }
    dear = asked.dear if number < asked.dear_n else ()
    for name in (Method.MAP.value, *ALONE, *(m.value for m in dear)):
        began = time.monotonic()
        found = _map(met, asked.nets, met.seen, name)
        met.maps[name] = found
        row["methods"][name] = {
            "hit": checks.points_at(found, met.grown),
            "hit_strict": checks.points_at(found, met.lesion),
            "share": checks.share_inside(found, met.grown),
            "speaks": bool((found > 0).any()),
            "seconds": round(time.monotonic() - began, 2),
        }
    row["key_slice"] = _crossed(met, asked)
    if suspected and asked.deletion:
        row["deletion"] = _deletion(met, asked, logit)
    if asked.random is not None and number < asked.random_n:
        row |= _similarities(met, asked)
    return row


def fused(met: Met, asked: Asked, grid: MetaTensor) -> float:
    """The logit that is decided on; of another grid than the patient's own it is computed anew."""
    evidence = met.seen.evidence
    if grid is not met.grid:
        evidence = gather(asked.nets, grid, met.anatomy, [met.target])
    score = to_score(met.target, evidence, grid)
    entry = asked.table.targets.get(met.target)
    if score is None:
        raise ValueError(f"Expected a score of {met.target}, got none")
    if entry is None or entry.fusion is None:
        return score.ensemble
    return entry.fusion.apply(score.ensemble, score.volume)


def _tissue(met: Met) -> Tensor:
    """What of the scan is not air."""
    tissue = met.seen.evidence.tissue
    return met.near if tissue is None else tissue


def _finding(target: Target, logit: float, table: CutoffTable) -> Finding:
    """What is said of this score: suspected or not; no certificate is asked for."""
    entry = table.targets.get(target)
    if entry is None:
        return Finding(target, Verdict.UNCERTIFIED, None)
    return decide(
        target,
        logit,
        entry,
        calibrated_on=table.calibrated_on,
        simulated_input=False,
        min_sensitivity_bound=1.0,
    )


def _map(met: Met, nets: Networks, seen: Seen, name: str) -> Tensor:
    """The map of a method, or of the default one from a branch `ALONE`."""
    branches = None
    if name not in (Method.MAP.value, *ALONE):
        branches = Captum(nets, seen.evidence, met.grid, met.anatomy, Method(name))
    field = explain(
        nets,
        seen.evidence,
        met.anatomy,
        met.target,
        ALONE.get(name, met.weights),
        branches,
        speaks_for=met.speaks_for,
    )
    return torch.as_tensor(field.as_tensor()[0])


def _crossed(met: Met, asked: Asked) -> Row:
    """Whether the first key slice, and any of them, crosses the lesion; by chance, one would."""
    volume = Volume(met.grid, (), Series("", "", ()))
    evidence = met.seen.evidence
    places = place_logits(asked.nets, evidence, met.anatomy, met.target, met.weights)
    keys = key_slices(places, met.grid, volume)
    met.keys = tuple(k.index for k in keys)
    crosses = met.lesion.any(0).any(0)  # (Z,)
    inside = met.near.any(0).any(0)
    return {
        "any": any(bool(crosses[k.index]) for k in keys),
        "first": bool(keys) and bool(crosses[keys[0].index]),
        "chance": float((crosses & inside).sum()) / max(int(inside.sum()), 1),
    }


def _deletion(met: Met, asked: Asked, logit: float) -> Row:
    """Fall of the logit without the strongest voxels, and without random ones."""
    hu = met.grid.as_tensor()[0]
    organs = organ_mask(met.anatomy, TARGET_ORGANS[met.target])
    top = checks.strongest(met.maps[Method.MAP.value], met.near)
    falls = {}
    among = checks.random_places(met.near, int(top.sum()), seed=len(met.case.patient_id))
    for name, places in (("top", top), ("random", among)):
        changed = checks.without(hu, places, organs)
        grid = MetaTensor(changed[None], affine=met.grid.affine)
        falls[name] = round(logit - fused(met, asked, grid), 4)
    return falls


def _similarities(met: Met, asked: Asked) -> Row:
    """Of the logits around the organs, before what speaks against is bounded, and of what is shown.

    Where both networks say that there is nothing, they show the same: nothing.
    """
    random = asked.random
    if random is None:
        raise ValueError("Expected networks with shuffled weights")
    seen = replace(met.seen, evidence=gather(random, met.grid, met.anatomy, [met.target]))
    shown = _map(met, random, seen, Method.MAP.value)
    fields = []
    for nets, evidence in ((asked.nets, met.seen.evidence), (random, seen.evidence)):
        places = place_logits(nets, evidence, met.anatomy, met.target, met.weights)
        field = torch.zeros_like(shown)
        if places is not None:
            low, high = places.logits[places.near].aminmax()
            scaled = (places.logits - low) / (high - low).clamp_min(1e-6)
            field[places.box] = scaled.masked_fill(~places.near, 0.0)
        fields.append(field)
    return {
        "similarity": round(checks.similarity(fields[0], fields[1], met.near, 1.0), 4),
        "similarity_shown": round(
            checks.similarity(met.maps[Method.MAP.value], shown, met.near), 4
        ),
    }


def _voxel_ml(grid: MetaTensor) -> float:
    return float(np.prod([float(mm) for mm in grid.pixdim])) / 1000


def shuffled(nets: Networks, seed: int = 1) -> Networks:
    """Networks whose weights are shuffled within each tensor; the localiser keeps its own."""
    slices, volume = copy.deepcopy(nets.slices), copy.deepcopy(nets.volume)
    generator = torch.Generator().manual_seed(seed)
    for parameter in (*slices.parameters(), *volume.parameters()):
        flat = parameter.data.flatten()
        order = torch.randperm(len(flat), generator=generator)
        parameter.data = flat[order.to(flat.device)].reshape(parameter.shape)
    programs = Programs(TorchEngine(nets.device), "shuffled", nets.localiser, slices, volume)
    return replace(nets, slices=slices, volume=volume, programs=programs, sequence=None)


def read_rows(path: Path) -> list[Row]:
    """Rows written so far, the last of each positive; a line left in half is passed over."""
    rows: dict[tuple[str, str | None], Row] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError):
            row = json.loads(line)
            rows[row["patient"], row.get("target")] = row
    return list(rows.values())


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
