"""Errors planted into simulated series, for scripts/quality-report.

What the networks see of a series is kept, one line each, in planted.jsonl: an interrupted call goes
on there, and rules are tried again without it. Series that differ in the header alone are seen
once.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from triage.audit.examine import Eyes, Record
from triage.audit.suspicions import suspicions
from triage.audit.tables import Tables
from triage.imaging.turns import LEFT_RIGHT, TURNS
from triage.inference.localise import describe, localise
from triage.inference.pose import Coverage, Orientation, look
from triage.inference.quality import LIMITS, Seen, judge_seen
from triage.inference.scope import contrast_phase, judge_scope
from triage.reasons import NotAnalysed
from triage.training.cache import AFFINE, Entry, entries
from triage.types import TARGETS, Organ

SOLID = (Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT)
KINDS = {  # what is planted -> suspicions that find it
    "mirrored": {"mirrored"},
    "mislabelled": {"body_part", "not_abdomen"},
    "truncated": {"incomplete_organ", "coverage"},
    "wrong phase": {"phase"},
}
IN_HEADER = ("mislabelled", "wrong phase")  # the image stays as it is
PARTS = ("HEAD", "CHEST", "EXTREMITY")
PHASES = ("plain", "arterial", "portal venous", "delayed")
SURE = 0.5  # confidence from which a suspicion counts


def plan(people: int, count: int, share: float, seed: int) -> list[tuple[int, str]]:
    """(person, kind) of each series; each kind takes its share, the others stay as they are."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        place = rng.random() / share
        out.append((k % people, list(KINDS)[int(place)] if place < len(KINDS) else ""))
    return out


def measure(
    eyes: Eyes,
    sets: Path,
    out: Path,
    count: int,
    share: float,
    *,
    first: int = 0,
    people: int = 0,
    minutes: float = 0,
    seed: int = 5,
) -> dict[str, Any]:
    """Recall and precision of the rules of `triage audit`, and alarms about sound series.

    `people`: so many patients at most, after the first `first`. `minutes`: then the series seen so
    far are reported; images are taken in random order, so that they are a fair part.
    """
    cases = [e for e in entries(sets) if e.meta["truth"]["anatomy"] == "parametric"]
    cases = cases[first:][: people or None]
    planned = plan(len(cases), count, share, seed)
    looks = _looks(eyes, cases, planned, out / "planted.jsonl", minutes)
    return report([p for p in planned if _image(*p) in looks], looks, seed)


def _image(person: int, kind: str) -> tuple[int, str]:
    return person, "" if kind in IN_HEADER else kind


def _looks(
    eyes: Eyes, cases: list[Entry], planned: list[tuple[int, str]], path: Path, minutes: float
) -> dict[tuple[int, str], dict[str, Any]]:
    """What is seen of each image that is needed, from the file or anew."""
    known = dict(_lines(path)) if path.exists() else {}
    needed = list(dict.fromkeys(_image(*p) for p in planned))
    wanted = [needed[int(k)] for k in np.random.default_rng(3).permutation(len(needed))]
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    for k, (person, kind) in enumerate(w for w in wanted if w not in known):
        if time.monotonic() > end:
            break
        known[person, kind] = _look(eyes, cases[person], person, kind)
        with path.open("a") as stream:
            stream.write(json.dumps([person, kind, known[person, kind]]) + "\n")
        if k % 10 == 9:
            print(f"planted: {len(known)} of {len(wanted)} images seen", flush=True)
    return {w: known[w] for w in wanted if w in known}


def _lines(path: Path) -> Iterator[tuple[tuple[int, str], dict[str, Any]]]:
    for line in path.read_text().splitlines():
        try:
            person, kind, seen = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        yield (person, kind), seen


def _look(eyes: Eyes, entry: Entry, person: int, kind: str) -> dict[str, Any]:
    """One image through localiser and quality networks, as JSON values."""
    if eyes.localiser is None:
        raise ValueError("Expected a localiser")
    rng = np.random.default_rng((7, person, len(kind)))
    hu = torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0).float()[None]
    labels = torch.from_numpy(np.array(entry.labels[0])).permute(2, 1, 0)
    low, high = int(rng.integers(0, 4)), hu.shape[3] - int(rng.integers(0, 4))
    if kind == "truncated":
        z = (labels == 1).any(0).any(0).nonzero().flatten()
        middle = int(z[0] + z[-1]) // 2
        low, high = (middle, high) if rng.random() < 0.5 else (low, middle)
    hu, labels = hu[..., low:high], labels[..., low:high]
    if kind == "mirrored":
        hu, labels = LEFT_RIGHT.apply(hu), LEFT_RIGHT.apply(labels)
    grid = MetaTensor(hu.contiguous(), affine=torch.diag(AFFINE))
    truth = describe(labels, grid.affine)
    anatomy = localise(eyes.localiser, grid)
    phase, aorta = contrast_phase(grid, anatomy)
    x = [(anatomy.labels.as_tensor()[0] == v).nonzero()[:, 0].float() for v in (1, 2)]
    right = None if min(map(len, x)) < 500 else bool(x[0].mean() > x[1].mean())
    orientation, coverage, distance = look(eyes.quality, hu)
    seen: dict[str, Any] = {
        "is_phase": entry.phase.value,
        "cut": [
            o for o in (*SOLID, Organ.BOWEL) if truth.volume_ml[o] > 20 and not truth.complete[o]
        ],
        "phase": phase.value,
        "aorta_hu": aorta,
        "liver_right": right,
        "incomplete": [
            o
            for o in (*SOLID, Organ.BOWEL)
            if anatomy.volume_ml[o] > 20 and not anatomy.complete[o]
        ],
        "turn": TURNS.index(orientation.turn),
        "probability": orientation.probability,
        "log_odds": orientation.log_odds,
        "regions": np.round(coverage.regions, 3).tolist(),
        "levels": np.round(coverage.levels, 2).tolist(),
        "abdomen": coverage.abdomen,
        "distance": distance,
    }
    try:
        scope = judge_scope(grid, anatomy)
        seen["scope"] = dict.fromkeys(scope.partial, "cut") | dict(scope.not_assessed)
    except NotAnalysed as refusal:
        seen["scope"] = dict.fromkeys(TARGETS, refusal.code)
    return json.loads(json.dumps(seen, default=str))  # type: ignore[no-any-return]


def seen_again(seen: Mapping[str, Any], facts: Mapping[str, Any]) -> Seen:
    """What the rules look at, from a line of the file."""
    orientation = Orientation(
        TURNS[seen["turn"]], seen["probability"], seen["log_odds"], torch.zeros(1)
    )
    regions, levels = (np.array(seen[k], np.float32) for k in ("regions", "levels"))
    coverage = Coverage(regions, levels, seen["abdomen"])
    return Seen(orientation, coverage, seen["distance"], {}, facts, LIMITS)


def _record(k: int, kind: str, seen: Mapping[str, Any], rng: np.random.Generator) -> Record:
    said, part = str(seen["is_phase"]).replace("_", " "), "ABDOMEN"
    if kind == "mislabelled":
        part = str(rng.choice(PARTS))
    if kind == "wrong phase":
        said = str(rng.choice([p for p in PHASES if p != said]))
    quality = judge_seen(seen_again(seen, {"BodyPartExamined": part}))
    name = str(k)
    same = {"key": name, "kind": "dicom", "path": "", "patient": name, "series": name}
    own = {n: seen[n] for n in ("phase", "aorta_hu", "liver_right", "incomplete")}
    return {**same, **own, "description": said, "figures": quality.figures}


def report(
    planned: list[tuple[int, str]], looks: Mapping[tuple[int, str], dict[str, Any]], seed: int
) -> dict[str, Any]:
    """Recall and precision of each kind; what is said of series without a fault."""
    rng = np.random.default_rng((seed, 1))
    hits, there, alarms, sound = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    phase_right, sound_count, wrong = [], 0, []
    for k, (person, kind) in enumerate(planned):
        seen = looks[_image(person, kind)]
        record = _record(k, kind, seen, rng)
        found = {s.kind for s in suspicions([record], Tables()) if s.confidence >= SURE}
        truth = ({kind} - {""}) | ({"truncated"} if seen["cut"] else set())
        phase_right.append(seen["phase"] == seen["is_phase"])
        for name, kinds in KINDS.items():
            said = bool(found & kinds)
            there[name] += name in truth
            alarms[name] += said
            hits[name] += name in truth and said
            if said != (name in truth):
                wrong.append([name, "missed" if name in truth else "false", person, kind])
        if not truth:
            sound_count += 1
            sound["any"] += bool(found)
            sound.update(found)
    rates = {
        n: {
            "planted": there[n],
            "recall": round(hits[n] / max(1, there[n]), 4),
            "precision": round(hits[n] / max(1, alarms[n]), 4),
            "missed": there[n] - hits[n],
            "false": alarms[n] - hits[n],
        }
        for n in KINDS
    }
    return {
        "series": len(planned),
        "images": len(looks),
        "patients": len({p for p, _ in planned}),
        "phase_right": float(np.mean(phase_right)),
        "kinds": rates,
        "recall": sum(hits.values()) / max(1, sum(there.values())),
        "precision": sum(hits.values()) / max(1, sum(alarms.values())),
        "sound_series": sound_count,
        "suspicions_of_sound_series": dict(sound),
        "patients_as_they_are": _refusals(looks),
        "wrong": wrong,
    }


def _refusals(looks: Mapping[tuple[int, str], dict[str, Any]]) -> dict[str, Any]:
    """Of patients whose organs are whole: what is refused, warned of, or not assessed."""
    codes, targets, unlike = Counter[str](), Counter[str](), 0
    sound = [v for (_, kind), v in looks.items() if not kind and not v["cut"]]
    cut = [v for v in looks.values() if set(v["cut"]) & set(SOLID)]
    for seen in sound:
        for finding in judge_seen(seen_again(seen, {"BodyPartExamined": "ABDOMEN"})).findings:
            codes[finding.code] += 1
        told = {t: why for t, why in seen["scope"].items() if why != "NO_CONTRAST"}
        targets.update(told.keys())
        unlike += bool(told)
    return {
        "patients": len(sound),
        "codes": dict(codes),
        "not_assessed": dict(targets),
        "with_a_target_not_assessed": unlike,
        "cut": len(cut),
        "cut_and_called_whole": sum(not v["incomplete"] for v in cut),
    }
