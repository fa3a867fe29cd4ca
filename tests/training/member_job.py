"""A small training of members on made-up features, as a process of its own: it may be killed.

python -m tests.training.member_job FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from triage.nets.slice_net import Tail
from triage.training.features import Features
from triage.training.folds import Split
from triage.training.members import Recipe, train_members
from triage.training.slices import WHOLE_BODY, Sample
from triage.types import Target

FOLDS = 2


def made_up(
    persons: int = 40, slices: int = 4, *, signal: float = 2.5, shuffled: bool = False
) -> Features:
    """Features (N, 2, 160, 2, 2); channel 5 is raised in the injured. `shuffled`: labels lie."""
    rng = np.random.default_rng(3)
    hurt = rng.permutation(np.arange(persons) % 2)
    label = np.repeat(hurt, slices)
    values = rng.normal(0, 1, (len(label), 2, 160, 2, 2))
    values[:, :, 5] += signal * label[:, None, None, None]
    if shuffled:
        label = np.repeat(rng.permutation(hurt), slices)
    samples = tuple(
        Sample(i, Target.LIVER, WHOLE_BODY, 0, (0.0, 0.0), int(y)) for i, y in enumerate(label)
    )
    names = tuple(f"p{i // slices}" for i in range(len(label)))
    return Features(samples, values.astype(np.float16), names, "key")


def split_of(features: Features) -> Split:
    """Persons in turn; every fifth calibrates."""
    names = sorted(set(features.persons))
    where: dict[str, int | str] = {n: i % FOLDS for i, n in enumerate(names)}
    where |= dict.fromkeys(names[::5], "calibration")
    return Split(where, FOLDS)


def say(text: str) -> None:
    print(text, flush=True)


def run(folder: Path, features: Features, *, epochs: int = 5) -> list[Tail]:
    torch.set_num_threads(1)
    recipe = Recipe(epochs=epochs, batch=16)
    return train_members(
        "liver",
        features,
        split_of(features),
        lambda k: Tail(),
        folder,
        recipe,
        seed=4,
        device="cpu",
        log=say,
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), made_up())
