"""What each choice of the slice ensembles is worth: `python -m triage.training.ablation --help`.

Every variant differs from the baseline (crop of the organ, 224 pixels, balanced 1:1, the last 8
layers learning, ImageNet weights) in what its name says; all see the same persons, slices
and folds.
A held-out patient is judged on slices that lie evenly through the organ, by the highest logit, by
their mean, and by the mean of the three highest: AUC over patients, and its lead over the
baseline's on the same patients (paired DeLong), which tells more than two intervals that overlap.
Trainings are short, so the figures are for comparing, not for promising. Resumable: what is there
is not trained again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from triage.decision.auc import auc_interval, difference
from triage.files import write_atomic
from triage.inference.networks import choose_device
from triage.training import cache, features
from triage.training.ablation_variants import (
    FRESH,
    GENTLE,
    MIXED,
    PARAMETRIC,
    VARIANTS,
    Other,
    Upper,
    Variant,
    networks,
)
from triage.training.evaluation.wording import interval, led
from triage.training.folds import Split, make_split
from triage.training.layout import Patient
from triage.training.loop import Group, Habits, Parts, Plan, Task, train
from triage.training.slices import LESION_PIXELS, WHOLE_BODY, Sample, samples_of
from triage.types import TARGETS, Target

FOLDS, SEED = 3, 11
BATCH, DECAY = 32, 1e-2
COPIES = 2  # of a slice: plain and augmented
JUDGED = 12  # slices of a held-out patient
POOLS: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "max": lambda x: float(x.max()),
    "mean": lambda x: float(x.mean()),
    "mean of the highest three": lambda x: float(np.sort(x)[-3:].mean()),
}


class Slices(NamedTuple):
    """Slices of patients with the labels of each output."""

    samples: list[Sample]
    labels: NDArray[np.float32]  # (N, outputs)


class Batch(NamedTuple):
    x: Tensor  # (B, C, h, w)
    y: Tensor  # (B, outputs)


@dataclass
class Learn(Task[Batch, Batch]):
    """One fold of one variant. `pools`: rows that take turns in a batch."""

    name: str
    net: Upper | Other
    values: NDArray[np.float16]  # (N, copies, C, h, w)
    labels: NDArray[np.float32]
    pools: list[NDArray[np.int64]]
    rates: tuple[float, float]

    def groups(self) -> list[Group]:
        body = [p for p in self.net.body.parameters() if p.requires_grad]
        head = list(self.net.head.parameters())
        return [Group(body, self.rates[0], DECAY), Group(head, self.rates[1], DECAY)]

    def sample(self, i: int, rng: np.random.Generator) -> Batch:
        pool = self.pools[i % len(self.pools)]
        row = int(pool[rng.integers(len(pool))])
        copy = int(rng.integers(self.values.shape[1]))
        x = torch.from_numpy(np.array(self.values[row, copy])).float()
        return Batch(x, torch.from_numpy(self.labels[row]))

    def collate(self, items: list[Batch]) -> Batch:
        return Batch(*(torch.stack(column) for column in zip(*items, strict=True)))

    def loss(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Parts]:
        return F.binary_cross_entropy_with_logits(net(batch.x).float(), batch.y), {}


@dataclass(frozen=True)
class Bench:
    """What all variants share. `entries`: simulated patients with masks."""

    entries: Sequence[cache.Entry]
    split: Split
    weights: Path
    work: Path
    epochs: int
    device: torch.device
    slices: int = 2400  # that train, of one target: a third with the lesion
    log: Callable[[str], None] = print

    def run(self, variant: Variant, target: Target) -> dict[str, Any]:
        """Train the folds of one variant, judge the held-out patients."""
        learned, judged = self._slices(variant, target)
        lower, upper = networks(variant, self.weights)
        seen = self._features(variant, lower, learned, COPIES)
        shown = self._features(variant, lower, judged, 1)
        column = TARGETS.index(target) if variant.joint else 0
        logits = np.full(len(judged.samples), np.nan)
        allowed = self._persons(variant)
        rates = GENTLE if variant.pretrained else FRESH
        for k in range(self.split.folds):
            torch.manual_seed(SEED + k)
            net = upper()
            pools = self._pools(variant, learned, seen.persons, allowed, k)
            task = Learn(f"{_slug(variant.name)}-{target.value}-{k}", net, seen.values,
                         learned.labels, pools, rates)  # fmt: skip
            steps = max(1, self.epochs * sum(len(p) for p in pools) * COPIES // (2 * BATCH))
            plan = Plan(steps, BATCH, SEED + k, schedule="cosine", warmup=0.05)
            habits = Habits(self.device.type, log_every=max(1, steps // 4), save_every=100)
            trained = train(task, self.work / "training", plan, habits, log=self.log)
            rows = [i for i, p in enumerate(shown.persons) if self.split.holds_out(p, k)]
            logits[rows] = _judge(trained, shown.values, rows, column)
        return {"variant": asdict(variant), **self._figures(judged, logits, target)}

    def _slices(self, variant: Variant, target: Target) -> tuple[Slices, Slices]:
        own = [s for i, e in enumerate(self.entries) for s in samples_of(i, e, [target])]
        if variant.body:
            own = [replace(s, view=WHOLE_BODY, centre=self.entries[s.entry].body[:2]) for s in own]
        rng = np.random.default_rng(SEED)
        judged = [
            s for i in range(len(self.entries)) for s in _even([s for s in own if s.entry == i])
        ]
        if variant.joint:
            learned = [own[i] for i in sorted(rng.permutation(len(own))[: self.slices])]
            return self._labelled(learned, joint=True), self._labelled(judged, joint=True)
        chosen = features.choose(own, SEED, self.slices)
        return self._labelled(chosen, joint=False), self._labelled(judged, joint=False)

    def _labelled(self, samples: list[Sample], *, joint: bool) -> Slices:
        if not joint:
            return Slices(samples, np.array([[s.truth] for s in samples], dtype=np.float32))
        rows = [lesions(self.entries[s.entry], s.slice) for s in samples]
        return Slices(samples, np.stack(rows).astype(np.float32))

    def _features(
        self, variant: Variant, lower: nn.Module, own: Slices, copies: int
    ) -> features.Features:
        return features.build(
            self.work / "features", lower, self.entries, own.samples, size=variant.size,
            seed=SEED, copies=copies, device=self.device,
            tell=lambda name, share: self.log(f"{variant.name}: {name}"),
        )  # fmt: skip

    def _persons(self, variant: Variant) -> set[str]:
        """Who may train: as many mixed persons as are parametric, where that is asked."""
        everyone = sorted({e.person for e in self.entries})
        parametric = {e.person for e in self.entries if e.meta["truth"]["anatomy"] == PARAMETRIC}
        if variant.persons == PARAMETRIC:
            return parametric
        if variant.persons == MIXED:
            return set(everyone)
        order = np.random.default_rng(SEED).permutation(len(everyone))
        return {everyone[i] for i in order[: len(parametric)]}

    def _pools(
        self, variant: Variant, own: Slices, persons: Sequence[str], allowed: set[str], fold: int
    ) -> list[NDArray[np.int64]]:
        inside = np.flatnonzero([p in allowed and self.split.trains(p, fold) for p in persons])
        if variant.joint:
            return [inside]
        label = np.array([s.label for s in own.samples])[inside]
        return [inside[label == y] for y in (0, 1)]

    def _figures(
        self, judged: Slices, logits: NDArray[np.float64], target: Target
    ) -> dict[str, Any]:
        by_patient: dict[int, list[float]] = {}
        for sample, value in zip(judged.samples, logits, strict=True):
            by_patient.setdefault(sample.entry, []).append(float(value))
        found = [self.entries[i] for i in by_patient]
        labels = np.array([int(e.grade(target) > 0) for e in found])
        persons = [e.person for e in found]
        out: dict[str, Any] = {"patients": len(found), "injured": int(labels.sum())}
        out |= {"auc": {}, "persons": persons, "labels": labels.tolist(), "scores": {}}
        for name, pool in POOLS.items():
            scores = np.array([pool(np.array(v)) for v in by_patient.values()])
            out["auc"][name] = auc_interval(scores, labels, persons).to_dict()
            out["scores"][name] = [round(float(x), 5) for x in scores]
        return out


def lesions(entry: cache.Entry, z: int) -> NDArray[np.float32]:
    """Which targets' lesions a slice shows, (5,) in {0, 1}."""
    bits = np.asarray(entry.labels[1, max(z - 1, 0) : z + 2])  # (1 .. 3, Y, X)
    area = [int(((bits >> t) & 1).sum((1, 2)).max()) for t in range(len(TARGETS))]
    return np.array([a >= LESION_PIXELS[t] for a, t in zip(area, TARGETS, strict=True)], np.float32)


def _even(samples: Sequence[Sample]) -> list[Sample]:
    """`JUDGED` slices of one patient, evenly from the lowest to the highest: blind to the label."""
    order = sorted(samples, key=lambda s: (s.slice, s.view))
    if len(order) <= JUDGED:
        return order
    return [order[round(i)] for i in np.linspace(0, len(order) - 1, JUDGED)]


@torch.no_grad()
def _judge(
    net: nn.Module, values: NDArray[np.float16], rows: Sequence[int], column: int
) -> NDArray[np.float64]:
    out = []
    for i in range(0, len(rows), 64):
        x = torch.from_numpy(np.array(values[rows[i : i + 64], 0])).float()
        out.append(net(x)[:, column].double().numpy())
    return np.concatenate(out)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.split(":", maxsplit=1)[0].lower())


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Variant x target, AUC with interval and lead, as Markdown; other ways to pool below."""
    targets = list(next(iter(found.values())))
    lines = [f"| variant | {' | '.join(targets)} |", "|---" * (1 + len(targets)) + "|"]
    for name, own in found.items():
        cells = [f"{interval(own.get(t), 3)}{led(own.get(t))}" for t in targets]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def collected(work: Path) -> dict[str, dict[str, Any]]:
    """Variant -> target -> AUC by the highest slice, with `lead` over the baseline's; the
    baseline's other ways to pool behind."""
    out: dict[str, dict[str, Any]] = {}
    for number, variant in enumerate(VARIANTS):
        for path in sorted((work / "found").glob(f"{number:02d}-*.json")):
            found = json.loads(path.read_text())
            target = path.stem.split("-")[1]
            baseline = work / "found" / f"00-{target}.json"
            first = json.loads(baseline.read_text()) if baseline.exists() else None
            out.setdefault(variant.name, {})[target] = _figure(found, "max", first)
            for name in list(POOLS)[1:] if number == 0 else ():
                key = f"a patient by the {name} of the slices"
                out.setdefault(key, {})[target] = _figure(found, name, first)
    return out


def _figure(
    found: Mapping[str, Any], pool: str, baseline: Mapping[str, Any] | None
) -> dict[str, Any]:
    """AUC of one way to pool; its lead over the baseline's, if that judged the same patients."""
    own: dict[str, Any] = dict(found["auc"][pool])
    if baseline is None or found["persons"] != baseline["persons"]:
        return own
    one, other = (np.array(x) for x in (found["scores"][pool], baseline["scores"]["max"]))
    if not np.array_equal(one, other):
        own["lead"] = difference(one, other, np.array(found["labels"]), found["persons"]).to_dict()
    return own


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, help="simulated patients, as `cache` writes them")  # fmt: skip # noqa: E501
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and results go here")
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet weights")
    parser.add_argument("--patients", type=int, default=240)
    parser.add_argument("--slices", type=int, default=2400, help="of one target that train")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--targets", nargs="*", default=["liver", "spleen"])
    parser.add_argument("--only", nargs="*", type=int, help="numbers of variants, from 0")
    a = parser.parse_args(arguments)
    entries = cache.entries(a.set)[: a.patients]
    if not entries:
        raise SystemExit(f"Expected simulated patients in {a.set}, found none")
    patients = [Patient(e.patient_id, {t: e.grade(t) for t in TARGETS}, False, e.person, True,
                        None, ()) for e in entries]  # fmt: skip
    split = make_split(patients, TARGETS, folds=FOLDS, calibration=0, seed=SEED)
    bench = Bench(entries, split, a.weights, a.work, a.epochs, choose_device("auto"), a.slices)
    (a.work / "found").mkdir(parents=True, exist_ok=True)
    for number, variant in enumerate(VARIANTS):
        for target in (Target(t) for t in a.targets):
            path = a.work / "found" / f"{number:02d}-{target.value}.json"
            if path.exists() or (a.only is not None and number not in a.only):
                continue
            print(f"{number + 1} of {len(VARIANTS)}, {target.value}: {variant.name}", flush=True)
            write_atomic(path, json.dumps(bench.run(variant, target), indent=1).encode())
    found = collected(a.work)
    write_atomic(a.work / "ablations.json", json.dumps(found, indent=1).encode())
    if found:
        print(table(found))


if __name__ == "__main__":
    main()
