"""Hard negatives for the volume net: places that it takes for injuries where there is none.

Pieces around any place of an organ rarely show what looks like an injury: a vessel, contrast in the
renal pelvis, a fold of bowel. A whole patient always does, and the strongest places decide. So a
second round is trained on the first one's mistakes (Felzenszwalb et al., PAMI 2010).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triage.files import write_atomic
from triage.imaging.masks import grown
from triage.nets.volume_net import NOWHERE, VolumeNet, near_regions, near_target
from triage.training.cache import Entry
from triage.training.loop import Habits, Plan
from triage.training.loop import train as run
from triage.training.trunk import HARD_TWICE
from triage.training.volume import RATE, Places, VolumeTask
from triage.training.volume_cases import Case, whole
from triage.types import TARGETS, Target

AWAY = 6  # voxels of 3 mm between a mistake and the lesion
APART = 8  # voxels between two mistakes
MOST = 5  # mistakes of a target in a patient
EVERY, SEED, BATCH, PATIENCE = 3, 9, 10, 4  # of patients; of the dice; pieces; validations


@torch.no_grad()
def of_patient(net: VolumeNet, case: Case) -> dict[Target, NDArray[np.int16]]:
    """The strongest places (n, 3) of each judged target away from its lesions, in voxels of 3 mm.

    None of a patient with injuries whose place is not known.
    """
    if not case.mapped:
        return {}
    x = whole(case.entry, case.organs)
    _, _, lesion = net(x.hu, x.regions, x.levels)  # (1, 5, X, Y, Z), padded beyond the box
    near = near_regions(x.regions)
    low = torch.tensor([part.start for part in x.box])
    size = [part.stop - part.start for part in x.box]
    found = {}
    for t, target in enumerate(TARGETS):
        if not case.labelled[t]:
            continue
        taken = grown((case.bits[x.box] & (1 << t)) > 0, (AWAY,) * 3)
        own = lesion[0, t].masked_fill(~near_target(near, target)[0], NOWHERE)
        own = own[: size[0], : size[1], : size[2]].masked_fill(taken, NOWHERE)
        found[target] = (strongest(own) + low).numpy().astype(np.int16)
    return found


def strongest(field: Tensor) -> Tensor:
    """At most `MOST` places (n, 3) of a map (X, Y, Z), `APART` from each other, strongest first."""
    field, places = field.clone(), []
    for _ in range(MOST):
        place = torch.tensor(np.unravel_index(int(field.argmax()), field.shape))
        if float(field[tuple(place)]) <= NOWHERE:
            break
        places.append(place)
        around = tuple(slice(max(int(p) - APART, 0), int(p) + APART + 1) for p in place)
        field[around] = NOWHERE
    return torch.stack(places) if places else torch.zeros(0, 3, dtype=torch.int64)


def collect(
    net: VolumeNet,
    cases: Sequence[Case],
    path: Path,
    every: int = 1,
    log: Callable[[str], None] = print,
) -> Places:
    """The mistakes in every `every`th case; kept in `path`, a line a case, and taken up there."""
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    numbers = range(0, len(cases), every)
    net.eval()
    for number in numbers[len(known) :]:
        places = of_patient(net, cases[number])
        known.append({t.value: found.tolist() for t, found in places.items()})
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in known).encode())
        if len(known) % 20 == 0:
            log(f"mistakes of {len(known)} of {len(numbers)} patients")
    return {
        t: [(number, np.array(row[t.value], np.int16))
            for number, row in zip(numbers, known, strict=True) if row.get(t.value)]
        for t in TARGETS
    }  # fmt: skip


def train_again(
    entries: Sequence[Entry],
    work: Path,
    *,
    start: Mapping[str, Tensor],
    steps: int,
    name: str,
    found: bool = False,
    deep: bool = False,
    held: Sequence[Entry],
    validate_every: int,
    log: Callable[[str], None] = print,
) -> VolumeNet:
    """A second round from the weights `start`, on mistakes; otherwise as `volume.train`."""
    torch.manual_seed(SEED)
    task = VolumeTask(
        entries, held, turns=HARD_TWICE, rate=RATE / 2, name=name, found=found, deep=deep
    )
    task.net.take_up(start)
    task.hard = collect(task.net, task.cases, work / f"{name}_mistakes.jsonl", EVERY, log)
    plan = Plan(steps, BATCH, SEED, validate_every=validate_every, patience=PATIENCE)
    run(task, work, plan, Habits(log_every=25, save_every=25), log=log)
    return task.net
