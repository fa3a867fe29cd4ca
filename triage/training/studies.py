"""What the members of a slice ensemble saw of patients, a series at a time: for sequence heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from monai.data import MetaTensor
from torch import Tensor

from triage.inference.localise import localise
from triage.inference.networks import Networks
from triage.inference.scope import judge_scope
from triage.inference.score import Looked, heights, look_at_slices, pool_slices
from triage.nets.sequence_head import at_steps
from triage.reasons import NotAnalysed
from triage.training.cache import Entry
from triage.training.cases import grid_of
from triage.training.checkpoint import read, save
from triage.types import TARGETS, Target


class View(NamedTuple):
    """The slices of one view, in steps of `sequence_head.STEP_MM`, from the feet upwards."""

    features: Tensor  # (S, C) trunk features averaged over the slice
    logits: Tensor  # (S,)
    z: Tensor  # (S,) mm
    base: float  # plain pooling of the logits


@dataclass(frozen=True)
class Study:
    """One target of one series: its views (two for kidneys) and whether it is injured."""

    person: str
    label: int
    views: tuple[View, ...]
    series: tuple[str, str] = ("", "")  # patient and series, where somebody asks for its score


def study_of(
    looked: Sequence[Looked],
    grid: MetaTensor,
    person: str,
    label: int,
    fold: int | None,
    series: tuple[str, str] = ("", ""),
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
    return Study(person, label, tuple(views), series) if views else None


def plain(study: Study) -> dict[str, Any]:
    """A study as plain values for a checkpoint; `from_plain` reads it."""
    return {"label": study.label, "views": [v._asdict() for v in study.views]}


def from_plain(found: Mapping[str, Any], person: str, series: tuple[str, str] = ("", "")) -> Study:
    views = tuple(View(**v) for v in found["views"])
    return Study(person, int(found["label"]), views, series)


def collect(
    entries: Sequence[Entry],
    nets: Networks,
    fold_of: Callable[[Target, str], int | None],
    keep: Path,
    *,
    log: Callable[[str], None] = print,
) -> dict[Target, list[Study]]:
    """Look at every patient as the service does, and keep what the out-of-fold member saw.

    `fold_of(target, person)`: the fold in which the person was held out, see `study_of`. `keep`: a
    folder with a file a patient and these networks; an interrupted run goes on there.
    """
    out: dict[Target, list[Study]] = {t: [] for t in TARGETS if nets.slices.members[t]}
    folder = keep / nets.ref.sha256[:12]
    for i, entry in enumerate(e for e in entries if e.is_volume):
        path = folder / f"{entry.folder.name}.pt"
        if not path.exists():
            save(path, {t.value: plain(s) for t, s in _look(entry, nets, fold_of).items()})
        told = read(path)
        for target in (t for t in out if t.value in told):
            out[target].append(from_plain(told[target.value], entry.person))
        if i % 20 == 0:
            log(f"sequence: looked at {i + 1} of {len(entries)} patients")
    return out


def _look(
    entry: Entry, nets: Networks, fold_of: Callable[[Target, str], int | None]
) -> dict[Target, Study]:
    """One patient: every target that is labelled and could be assessed."""
    grid = grid_of(entry)
    anatomy = localise(nets, grid)
    try:
        scope = judge_scope(grid, anatomy)
    except NotAnalysed:
        return {}
    looked = look_at_slices(nets, grid, anatomy)
    out = {}
    for target in (t for t in TARGETS if nets.slices.members[t]):
        label = entry.meta["grades"].get(target.value)
        if label is None or target in scope.not_assessed:
            continue
        fold = fold_of(target, entry.person)
        study = study_of(looked[target], grid, entry.person, int(label > 0), fold)
        if study is not None:
            out[target] = study
    return out
