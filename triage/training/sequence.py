"""Training of the sequence heads, on slices that the members which judged them never saw.

A patient's slices are judged by the one member whose held-out fold the patient is in: in-sample
logits would be far too sure, and the head would learn to trust them. A head is kept for a target
only where, held out itself, it beats the plain pooling of slice logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor, nn

from triage.inference.localise import localise
from triage.inference.networks import Networks
from triage.inference.scope import judge_scope
from triage.inference.score import Looked, heights, look_at_slices, pool_slices
from triage.nets.sequence_head import SequenceHead, SequenceHeads, at_steps
from triage.reasons import NotAnalysed
from triage.training.cache import Entry
from triage.training.cases import grid_of
from triage.training.checkpoint import read, save
from triage.training.evaluation.auc import auc
from triage.training.loop import Group, Habits, Parts, Plan, Task
from triage.training.loop import train as run
from triage.types import TARGETS, Target

STEPS, BATCH = 240, 24


class View(NamedTuple):
    """The slices of one view, in steps of `sequence_head.STEP_MM`, from the feet upwards."""

    features: Tensor  # (S, C) trunk features averaged over the slice
    logits: Tensor  # (S,)
    z: Tensor  # (S,) mm
    base: float  # plain pooling of the logits


@dataclass(frozen=True)
class Study:
    """One target of one patient: its views (two for kidneys) and whether it is injured."""

    person: str
    label: int
    views: tuple[View, ...]


def study_of(
    looked: Sequence[Looked], grid: MetaTensor, person: str, label: int, fold: int | None
) -> Study | None:
    """What the out-of-fold member saw of one target; None where no view was looked at.

    `fold`: the fold in which the person was held out; None if the person trained no member: then
    all members speak. `grid`: the working grid that was looked at (for heights).
    """
    views = []
    for seen in looked:
        if not seen.slices:
            continue
        own = seen.logits if fold is None else seen.logits[fold : fold + 1]  # (members, S)
        x, y, z = at_steps(
            seen.features.float().mean((2, 3)).cpu(),
            own.mean(0),
            heights(grid, seen.slices),
        )
        views.append(View(x, y, z, pool_slices(own)))
    return Study(person, label, tuple(views)) if views else None


def collect(
    entries: Sequence[Entry],
    nets: Networks,
    fold_of: Callable[[Target, str], int | None],
    *,
    log: Callable[[str], None] = print,
) -> dict[Target, list[Study]]:
    """Look at every patient as the service does, and keep what the out-of-fold member saw.

    `fold_of(target, person)`: the fold in which the person was held out, see `study_of`.
    """
    out: dict[Target, list[Study]] = {t: [] for t in TARGETS if nets.slices.members[t]}
    for i, entry in enumerate(e for e in entries if e.is_volume):
        grid = grid_of(entry)
        anatomy = localise(nets.localiser, grid)
        try:
            scope = judge_scope(grid, anatomy)
        except NotAnalysed:
            continue
        looked = look_at_slices(nets, grid, anatomy)
        for target, studies in out.items():
            label = entry.meta["grades"].get(target.value)
            if label is None or target in scope.not_assessed:
                continue
            fold = fold_of(target, entry.person)
            study = study_of(looked[target], grid, entry.person, int(label > 0), fold)
            if study is not None:
                studies.append(study)
        if i % 20 == 0:
            log(f"sequence: looked at {i + 1} of {len(entries)} patients")
    return out


class Batch(NamedTuple):
    """Views of several studies, padded to the longest; `owner` says whose they are."""

    features: Tensor  # (V, S, C)
    logits: Tensor  # (V, S)
    z: Tensor  # (V, S)
    base: Tensor  # (V,)
    length: Tensor  # (V,)
    owner: Tensor  # (V,)
    labels: Tensor  # (B,)


def pad(studies: Sequence[Study]) -> Batch:
    """Put studies of different lengths into one batch."""
    views = [v for s in studies for v in s.views]

    def grow(parts: list[Tensor]) -> Tensor:
        return nn.utils.rnn.pad_sequence(parts, batch_first=True)

    return Batch(
        grow([v.features for v in views]),
        grow([v.logits for v in views]),
        grow([v.z for v in views]),
        torch.tensor([v.base for v in views]),
        torch.tensor([len(v.z) for v in views]),
        torch.tensor([i for i, s in enumerate(studies) for _ in s.views]),
        torch.tensor([float(s.label) for s in studies]),
    )


def study_logits(head: nn.Module, batch: Batch) -> Tensor:
    """Study logits (B,): the strongest view counts."""
    each: Tensor = head(batch.features, batch.logits, batch.z, batch.base, batch.length)  # (V,)
    rows = [each[batch.owner == i].amax() for i in range(len(batch.labels))]
    return torch.stack(rows)


class SequenceTask(Task[Study, Batch]):
    """Studies with and without the injury in turn, altered a little each time."""

    def __init__(self, name: str, studies: Sequence[Study], width: int = 24) -> None:
        self.name = name
        self.net: SequenceHead = SequenceHead(studies[0].views[0].features.shape[1], width)
        self.pools = [[s for s in studies if s.label == y] for y in (0, 1)]
        if not all(self.pools):
            counts = [len(p) for p in self.pools]
            raise ValueError(f"{name}: expected studies with and without injury, got {counts}")

    def groups(self) -> list[Group]:
        return [Group(list(self.net.parameters()), 1e-2, 1e-2)]

    def sample(self, i: int, rng: np.random.Generator) -> Study:
        pool = self.pools[i % 2]
        study = pool[int(rng.integers(len(pool)))]
        return Study(study.person, study.label, tuple(_altered(v, rng) for v in study.views))

    def collate(self, items: list[Study]) -> Batch:
        return pad(items)

    def loss(self, net: nn.Module, batch: Batch) -> tuple[Tensor, Parts]:
        logits = study_logits(net, batch)
        return F.binary_cross_entropy_with_logits(logits, batch.labels), {}


def _altered(view: View, rng: np.random.Generator) -> View:
    """Another scan of the same: upside down, a little noisier. What is seen stays whole."""
    logits = view.logits + torch.from_numpy(rng.normal(0, 0.2, len(view.z)).astype(np.float32))
    logits = logits + float(rng.normal(0, 0.2))
    features, z = view.features, view.z
    if rng.random() < 0.5:
        features, logits = features.flip(0), logits.flip(0)
    return View(features, logits, z, view.base)


@torch.no_grad()
def judge(head: nn.Module, studies: Sequence[Study]) -> NDArray[np.float64]:
    """Study logits of studies, (n,)."""
    head.eval()
    found = [study_logits(head, pad(studies[i : i + 32])) for i in range(0, len(studies), 32)]
    out: NDArray[np.float64] = torch.cat(found).double().numpy()
    return out


def plain(studies: Sequence[Study]) -> NDArray[np.float64]:
    """The same by plain pooling of slice logits."""
    return np.array([max(v.base for v in s.views) for s in studies])


@dataclass(frozen=True)
class Compared:
    """Held-out AUC of the head and of plain pooling on the same studies."""

    studies: int
    head: float
    plain: float

    @property
    def better(self) -> bool:
        return self.head > self.plain


def compare(
    target: Target,
    studies: Sequence[Study],
    folder: Path,
    *,
    folds: int = 3,
    steps: int = STEPS,
    seed: int = 6,
) -> Compared:
    """Cross-validate a head by person: each study is judged by a head that never saw it."""
    people = sorted({s.person for s in studies})
    order = np.random.default_rng(seed).permutation(len(people))
    fold = {people[int(k)]: i % folds for i, k in enumerate(order)}
    scores = np.zeros(len(studies))
    for k in range(folds):
        inside = [s for s in studies if fold[s.person] != k]
        held = [i for i, s in enumerate(studies) if fold[s.person] == k]
        if len({s.label for s in inside}) < 2 or not held:
            return Compared(len(studies), float("nan"), float("nan"))
        own = folder / f"fold{k}"
        head = train_head(target, inside, own, steps=steps, seed=seed, log=lambda text: None)
        scores[held] = judge(head, [studies[i] for i in held])
    labels = np.array([s.label for s in studies])
    return Compared(len(studies), auc(scores, labels), auc(plain(studies), labels))


def train_head(
    target: Target,
    studies: Sequence[Study],
    folder: Path,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    seed: int = 6,
    log: Callable[[str], None] = print,
) -> SequenceHead:
    """Train one target's head; resumes from `folder`. Raises ValueError without both labels."""
    torch.manual_seed(seed)
    task = SequenceTask(f"sequence-{target.value}", studies)
    habits = Habits("cpu", log_every=max(1, steps // 4), save_seconds=30)
    run(task, folder, Plan(steps, batch, seed, average=0.95), habits, log=log)
    return task.net


def train_heads(
    studies: Mapping[Target, Sequence[Study]],
    folder: Path,
    *,
    steps: int = STEPS,
    log: Callable[[str], None] = print,
) -> tuple[SequenceHeads | None, dict[Target, Compared]]:
    """Heads of the targets where a head beats plain pooling held out, and the comparison."""
    compared: dict[Target, Compared] = {}
    kept: dict[Target, SequenceHead] = {}
    for target, own in studies.items():
        compared[target] = compare(target, own, folder / "compare" / target.value, steps=steps)
        seen = compared[target]
        log(f"sequence {target.value}: AUC {seen.head:.3f}, plain pooling {seen.plain:.3f}")
        if seen.better:
            kept[target] = train_head(target, own, folder, steps=steps, log=log)
    if not kept:
        return None, compared
    heads = SequenceHeads({t.value: h.channels for t, h in kept.items()})
    for target, head in kept.items():
        heads.heads[target.value].load_state_dict(head.state_dict())
    return heads.eval(), compared


def save_heads(path: Path, heads: SequenceHeads | None, seen: Mapping[Target, Compared]) -> None:
    """Keep heads and their comparison; `heads` None is kept too: none was better."""
    state = {
        "channels": heads.architecture["channels"] if heads else {},
        "width": heads.architecture["width"] if heads else 0,
        "weights": heads.state_dict() if heads else {},
        "auc": {t.value: {"head": c.head, "plain": c.plain} for t, c in seen.items()},
    }
    save(path, state)


def load_heads(path: Path) -> SequenceHeads | None:
    """Heads kept by `save_heads`; None where there is no file, or no head was better."""
    state = read(path) if path.exists() else {"channels": {}}
    if not state["channels"]:
        return None
    heads = SequenceHeads(state["channels"], int(state["width"]))
    heads.load_state_dict(state["weights"])
    return heads.eval().requires_grad_(False)
