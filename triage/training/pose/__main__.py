"""`python -m triage.training.pose`: the training stage of the quality networks.

    people      --sets DIR --labels DIR --work DIR     coarse people from simulated sets and maps
    orientation --work DIR [--leave-out NAME ...]      which way round
    region      --work DIR [--leave-out NAME ...]      which part of the body, which level
    bundle      --work DIR --out DIR                   both networks with their reference

Each goes on where it was interrupted; the same seed gives the same weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from triage.training.cache import entries
from triage.training.loop import Habits, Plan, train
from triage.training.pose import people
from triage.training.pose.tasks import OrientationTask, RegionTask
from triage.types import Phase

PHASES = tuple(p.value for p in Phase if p is not Phase.UNKNOWN)
FILES = ("parametric", "s0011", "s0327", "s0328")  # anatomies without a real image
HELD_OUT = 10  # every tenth parametric person is for validation


def gather(sets: Path | None, labels: Path | None, out: Path, variants: int) -> int:
    """Coarse people into `out`; those that are there are not made again."""
    made = 0
    for entry in entries(sets) if sets else ():
        variant = int(entry.folder.name.rsplit("_", 1)[-1])
        anatomy = entry.meta.get("truth", {}).get("anatomy")
        there = (out / f"{entry.folder.name}.npz").exists()
        if variant < variants and anatomy in FILES and not there:
            people.save(people.from_entry(entry), out)
            made += 1
    for path in sorted(labels.glob("*_labels.nii.gz")) if labels else ():
        for k, phase in enumerate(PHASES):
            name = f"{path.name.split('_labels')[0]}_{phase}_{k}"
            if not (out / f"{name}.npz").exists():
                people.save(people.from_labels(path, (14, k), phase), out)
                made += 1
    return made


def split(found: Sequence[people.Person]) -> tuple[list[people.Person], list[people.Person]]:
    """Training and validation: every tenth parametric person, all his scans together."""
    held = [p for p in found if p.anatomy == "parametric" and _number(p.name) % HELD_OUT == 0]
    names = {p.name for p in held}
    return [p for p in found if p.name not in names], held


def _number(name: str) -> int:
    return int("".join(c for c in name.split("_", maxsplit=1)[0] if c.isdigit()) or 0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m triage.training.pose", description=__doc__)
    parser.add_argument("stage", choices=("people", "orientation", "region", "bundle"))
    parser.add_argument("--work", type=Path, required=True, help="folder of this training")
    parser.add_argument("--sets", type=Path, help="cached simulated patients")
    parser.add_argument("--labels", type=Path, help="folder of *_labels.nii.gz")
    parser.add_argument("--variants", type=int, default=2, help="scans taken of each patient")
    parser.add_argument("--leave-out", nargs="*", default=[], help="anatomies kept for the test")
    parser.add_argument("--steps", type=int, default=0, help="0: the usual number")
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--init", type=Path, help="checkpoint of an earlier cycle to start from")
    parser.add_argument("--out", type=Path, help="folder of the bundle")
    options = parser.parse_args(arguments)
    if options.stage == "people":
        made = gather(options.sets, options.labels, options.work / "people", options.variants)
        print(f"{made} people made")
        return
    if options.stage == "bundle":
        from triage.training.pose.bundle import write

        print(write(options.work, options.out))
        return
    fit, held = split(people.load(options.work / "people", options.leave_out))
    torch.manual_seed(options.seed)
    folder = options.work / "-".join(
        ["without", *options.leave_out] if options.leave_out else ["all"]
    )
    habits = Habits("auto", log_every=25, save_every=100)
    if options.stage == "orientation":
        steps = options.steps or 800
        plan = Plan(steps, 2, options.seed, validate_every=max(1, steps // 2))
        train(OrientationTask(fit, held, options.init), folder, plan, habits)
    else:
        plan = Plan(options.steps or 1700, 32, options.seed)
        train(RegionTask(fit, init=options.init), folder, plan, habits)


if __name__ == "__main__":
    main()
