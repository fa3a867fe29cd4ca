"""A bundle in the making, and what it says of the patients that fit and judge it."""

from __future__ import annotations

from pathlib import Path

from triage.inference.networks import Networks, load_networks
from triage.training import assemble, cache, scoring
from triage.training.recipe import Recipe, entries, load_trained, say, weighed

SCORED = ("fuse", "cal", "well", "judged")


def write_draft(work: Path, recipe: Recipe, *, heads: bool = True) -> Path:
    """A bundle with neutral cutoffs: what the calibration patients are scored with."""
    nets = load_trained(work, recipe)
    return assemble.write(
        work / "draft",
        version="0",
        localiser=nets.localiser,
        slices=nets.slices,
        volume=nets.volume,
        sequence=nets.sequence if heads else None,
        cutoffs=assemble.neutral_table(),
        provenance={},
        card="Draft: not calibrated.",
        extra={},
    )


def scored_set(work: Path, recipe: Recipe, name: str) -> list[cache.Entry]:
    """Patients of one of `SCORED`."""
    return entries(work, name) if name == "judged" else weighed(work, recipe, name)


def score_sets(work: Path, recipe: Recipe) -> None:
    """What the draft says of every patient, into `scores/`; goes on where it was interrupted."""
    nets = load_draft(work)
    for name in SCORED:
        own = scored_set(work, recipe, name)
        scoring.score_all(own, nets, work / "scores" / f"{name}.csv", log=say)


def load_draft(work: Path) -> Networks:
    return load_networks(work / "draft", "auto")
