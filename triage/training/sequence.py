"""Training of the sequence heads, on slices that the members which judged them never saw.

A patient's slices are judged by the one member whose held-out fold the patient is in: in-sample
logits would be far too sure, and the head would learn to trust them. A head is kept for a target
only where, held out itself, it beats the plain pooling of slice logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from triage.decision.auc import auc
from triage.nets.sequence_head import SequenceHead, SequenceHeads
from triage.training.checkpoint import read, save
from triage.training.loop import Group, Habits, Parts, Plan, Task
from triage.training.loop import train as run
from triage.training.studies import Study, View
from triage.types import TARGETS, Target

STEPS, BATCH, WIDTH = 240, 24, 24
FEWEST = 8  # studies with, and without the injury: a comparison on fewer says nothing


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

    def __init__(self, name: str, studies: Sequence[Study], width: int = WIDTH) -> None:
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
        return replace(study, views=tuple(_altered(v, rng) for v in study.views))

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
    """Held-out AUC of the head and of plain pooling on the same studies.

    `scores`: study logits of heads that never saw the study's person, by its series. Where they are
    NaN there were too few studies to tell.
    """

    studies: int
    head: float
    plain: float
    scores: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def better(self) -> bool:
        return self.head > self.plain

    @property
    def said(self) -> str:
        """What became of the head, in words."""
        if np.isnan(self.head):
            return f"too few studies to tell ({self.studies}): plain pooling answers"
        found = f"AUC {self.head:.3f}, plain pooling {self.plain:.3f} ({self.studies} studies)"
        return f"{found}: {'the head' if self.better else 'plain pooling'} answers"


def compare(
    target: Target,
    studies: Sequence[Study],
    folder: Path,
    *,
    folds: int = 3,
    steps: int = STEPS,
    seed: int = 6,
    width: int = WIDTH,
) -> Compared:
    """Cross-validate a head by person: each study is judged by a head that never saw it."""
    unknown = Compared(len(studies), float("nan"), float("nan"))
    people = sorted({s.person for s in studies})
    order = np.random.default_rng(seed).permutation(len(people))
    fold = {people[int(k)]: i % folds for i, k in enumerate(order)}
    scores = np.zeros(len(studies))
    for k in range(folds):
        inside = [s for s in studies if fold[s.person] != k]
        held = [i for i, s in enumerate(studies) if fold[s.person] == k]
        if len({s.label for s in inside}) < 2 or not held:
            return unknown
        own = folder / f"fold{k}"
        head = train_head(
            target, inside, own, steps=steps, seed=seed, width=width, log=lambda text: None
        )
        scores[held] = judge(head, [studies[i] for i in held])
    labels = np.array([s.label for s in studies])
    each = {s.series: float(x) for s, x in zip(studies, scores, strict=True)}
    return Compared(len(studies), auc(scores, labels), auc(plain(studies), labels), each)


def train_head(
    target: Target,
    studies: Sequence[Study],
    folder: Path,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    seed: int = 6,
    width: int = WIDTH,
    log: Callable[[str], None] = print,
) -> SequenceHead:
    """Train one target's head; resumes from `folder`. Raises ValueError without both labels."""
    torch.manual_seed(seed)
    task = SequenceTask(f"sequence-{target.value}", studies, width)
    habits = Habits("cpu", log_every=max(1, steps // 4), save_seconds=30, alone=True)
    run(task, folder, Plan(steps, batch, seed, average=0.95), habits, log=log)
    return task.net


def train_heads(
    studies: Mapping[Target, Sequence[Study]],
    folder: Path,
    *,
    steps: int = STEPS,
    fewest: int = FEWEST,
    width: int = WIDTH,
    log: Callable[[str], None] = print,
) -> tuple[SequenceHeads | None, dict[Target, Compared]]:
    """Heads of the targets where a head beats plain pooling held out, and the comparison.

    With less than `fewest` studies of either label there is none.
    """
    compared: dict[Target, Compared] = {}
    kept: dict[Target, SequenceHead] = {}
    for target, own in studies.items():
        injured = sum(s.label for s in own)
        if min(injured, len(own) - injured) < fewest:
            compared[target] = Compared(len(own), float("nan"), float("nan"))
        else:
            beside = folder / "compare" / target.value
            compared[target] = compare(target, own, beside, steps=steps, width=width)
        log(f"sequence {target.value}: {compared[target].said}")
        if compared[target].better:
            kept[target] = train_head(target, own, folder, steps=steps, width=width, log=log)
    if not kept:
        return None, compared
    return together(kept), compared


def together(heads: Mapping[Target, SequenceHead]) -> SequenceHeads:
    """Heads of one width as one network."""
    widths = {h.width for h in heads.values()}
    out = SequenceHeads({t.value: h.channels for t, h in heads.items()}, widths.pop())
    for target, head in heads.items():
        out.heads[target.value].load_state_dict(head.state_dict())
    return out.eval().requires_grad_(False)


def merged(*parts: SequenceHeads | None) -> SequenceHeads | None:
    """The heads of several networks in one; None where there are none."""
    heads: dict[Target, SequenceHead] = {}
    for part in parts:
        for target in TARGETS:
            if part is not None and target in part:
                head = part.heads[target.value]
                if not isinstance(head, SequenceHead):
                    raise TypeError(f"Expected a SequenceHead, got {type(head).__name__}")
                heads[target] = head
    return together(heads) if heads else None


def save_heads(path: Path, heads: SequenceHeads | None, seen: Mapping[Target, Compared]) -> None:
    """Keep heads and their comparison; `heads` None is kept too: none was better."""
    state = {
        "channels": heads.architecture["channels"] if heads else {},
        "width": heads.architecture["width"] if heads else 0,
        "weights": heads.state_dict() if heads else {},
        "auc": {t.value: {"head": c.head, "plain": c.plain} for t, c in seen.items()},
        "said": {t.value: c.said for t, c in seen.items()},
    }
    save(path, state)


def said(path: Path) -> dict[str, str]:
    """What became of each target's head, in words."""
    told: dict[str, str] = read(path).get("said", {}) if path.exists() else {}
    return told


def load_heads(path: Path) -> SequenceHeads | None:
    """Heads kept by `save_heads`; None where there is no file, or no head was better."""
    state = read(path) if path.exists() else {"channels": {}}
    if not state["channels"]:
        return None
    heads = SequenceHeads(state["channels"], int(state["width"]))
    heads.load_state_dict(state["weights"])
    return heads.eval().requires_grad_(False)
