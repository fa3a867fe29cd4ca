"""A set of patients on disk, ready for training: simulated ones here, others by `dataset`.

One folder a series: `hu.npy` int16 (Z, Y, X), `labels.npy` uint8 (2, Z, Y, X) with organ labels
and lesion bits (bit i is set where target i of `TARGETS` has a lesion), `meta.json`. Volumes lie on
the working grid; of images without HU and geometry (`kind` "images") there is only `hu.npy`, a
stack of single slices. Written by several processes, resumable: what is there is not made again.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from triage.imaging.body import body_box
from triage.types import TARGETS, Organ, Phase, Target

if TYPE_CHECKING:
    from triage.simulate.background import Background
    from triage.simulate.patient import Patient
    from triage.simulate.strata import Mix

SPACING = (1.5, 1.5, 3.0)
AFFINE = torch.tensor([*SPACING, 1.0], dtype=torch.float64)


@dataclass(frozen=True)
class Entry:
    """One cached patient (one series of it); arrays are memory-mapped."""

    folder: Path
    meta: dict[str, Any]

    @property
    def hu(self) -> NDArray[np.int16]:
        return np.load(self.folder / "hu.npy", mmap_mode="r")  # type: ignore[no-any-return]

    @property
    def labels(self) -> NDArray[np.uint8]:
        return np.load(self.folder / "labels.npy", mmap_mode="r")  # type: ignore[no-any-return]

    @property
    def known(self) -> frozenset[Organ]:
        return frozenset(Organ(o) for o in self.meta["known"])

    @property
    def phase(self) -> Phase:
        return Phase(self.meta["phase"])

    def grade(self, target: Target) -> int:
        """0 none, 1 present or low, 2 high. KeyError where the target is not labelled."""
        return int(self.meta["grades"][target.value])

    def labelled(self, target: Target) -> bool:
        """Whether a grade is known, with contrast where the target takes contrast."""
        plain = target is Target.EXTRAVASATION and self.phase is Phase.PLAIN
        return target.value in self.meta["grades"] and not plain

    @property
    def person(self) -> str:
        """Patients that share an anatomy must stay on one side of every split."""
        return str(self.meta["person"])

    @property
    def patient_id(self) -> str:
        return str(self.meta.get("patient_id", self.folder.name))

    @property
    def is_volume(self) -> bool:
        """A volume on the working grid, or single slices whose size and HU are an estimate."""
        return str(self.meta.get("kind", "volume")) == "volume"

    @property
    def simulated(self) -> bool:
        return bool(self.meta.get("simulated", True))

    @property
    def body(self) -> tuple[float, float, float]:
        """Centre (x, y) and side, in voxels, of the square around the body."""
        if "body" not in self.meta:
            hu = torch.from_numpy(np.array(self.hu)).permute(2, 1, 0).float()
            self.meta["body"] = body_square(MetaTensor(hu[None], affine=torch.diag(AFFINE)))
        x, y, side = self.meta["body"]
        return float(x), float(y), float(side)

    @property
    def masks_known(self) -> bool:
        """Whether the lesion bits of `labels` tell which slices show an injury."""
        return bool(self.meta.get("masks_known", True))


def body_square(grid: MetaTensor) -> tuple[float, float, float]:
    """Centre (x, y) and side, in voxels, of the square around the patient's body."""
    x, y, _ = body_box(grid)
    side = max(x.stop - x.start, y.stop - y.start)
    return (x.start + x.stop - 1) / 2, (y.start + y.stop - 1) / 2, float(side)


def entries(folder: Path) -> list[Entry]:
    """All finished patients of a set, in a stable order."""
    found = []
    for meta in sorted(folder.glob("*/meta.json")):
        found.append(Entry(meta.parent, json.loads(meta.read_text())))
    return found


def save(patient: Patient, folder: Path, person: str) -> None:
    """Write one patient; `meta.json` comes last and marks it as finished."""
    from triage.simulate.patient import kidney_side

    folder.mkdir(parents=True, exist_ok=True)
    lesions = torch.zeros(patient.organs.shape, dtype=torch.uint8)
    for bit, target in enumerate(TARGETS):
        if target in patient.masks:
            lesions |= patient.masks[target].to(torch.uint8) << bit
    flip = (2, 1, 0)
    np.save(folder / "hu.npy", patient.hu.permute(*flip).round().to(torch.int16).numpy())
    labels = torch.stack([patient.organs.permute(*flip), lesions.permute(*flip)])
    np.save(folder / "labels.npy", labels.numpy())
    meta = {
        "person": person,
        "phase": patient.phase.value,
        "grades": {t.value: g for t, g in patient.grades.items()},
        "side": kidney_side(patient),
        "known": [o.value for o in patient.known],
        "origin": patient.grid.origin,
        "truth": patient.truth,
    }
    (folder / "meta.json").write_text(json.dumps(meta))


def load_backgrounds(data: Path, names: Sequence[str]) -> list[Background]:
    """Backgrounds by name from a data folder: `anatomy/<name>_labels` or `ct/<name>`."""
    from triage.simulate.background import load

    out = []
    for name in names:
        labels = data / "anatomy" / f"{name}_labels.nii.gz"
        if labels.exists():
            out.append(load(None, labels, name))
            continue
        ct = data / "ct" / f"{name}.nii.gz"
        for ending in ("_seg", "_organs"):
            labels = data / "ct" / f"{name}{ending}.nii.gz"
            if labels.exists():
                out.append(load(ct, labels, name))
    return out


def _work(
    task: tuple[
        Path, int, Sequence[int], int, float, float, Path | None, Sequence[str], float, Mix | None
    ],
) -> int:
    from triage.simulate.patient import simulate
    from triage.simulate.plan import PHASES

    out, seed, ids, variants, enriched, share, data, names, plain, mix = task
    torch.set_num_threads(1)
    backgrounds = load_backgrounds(data, names) if data else []
    made = 0
    for i in ids:
        last = out / f"p{i:05d}_{variants - 1}" / "meta.json"
        if last.exists():
            continue
        patients = simulate(
            (seed, i),
            spacing=SPACING,
            backgrounds=backgrounds,
            parametric_share=share,
            case=mix,
            enriched=None if mix else enriched,
            variants=variants,
            phases={**PHASES, Phase.PLAIN: plain * sum(PHASES.values())} if plain else None,
        )
        for v, patient in enumerate(patients):
            save(patient, out / f"p{i:05d}_{v}", f"p{i:05d}")
            made += 1
    return made


def build(
    out: Path,
    people: int,
    seed: int,
    *,
    variants: int = 3,
    enriched: float = 0.3,
    parametric_share: float = 0.5,
    data: Path | None = None,
    backgrounds: Sequence[str] = (),
    plain: float = 0.0,
    mix: Mix | None = None,
    workers: int | None = None,
) -> int:
    """Simulate `people` anatomies, `variants` patients each, into `out`; returns patients made.

    `plain`: scans without contrast for each scan with it; the localiser has to know them. `mix`:
    draws their injuries, in place of `enriched`.
    """
    workers = workers or os.cpu_count() or 1
    rest = (variants, enriched, parametric_share, data, backgrounds, plain, mix)
    tasks = [(out, seed, range(k, people, workers), *rest) for k in range(workers)]
    with mp.get_context("spawn").Pool(workers) as pool:
        return sum(pool.imap_unordered(_work, tasks))


def _judged_work(task: tuple[Path, str, Sequence[int], Path | None]) -> int:
    from triage.simulate.judged import judged_patient
    from triage.simulate.protocol import load

    out, version, numbers, data = task
    torch.set_num_threads(1)
    protocol = load(version)
    names = [name for name in protocol.anatomies if name != "parametric"]
    backgrounds = {b.name: b for b in load_backgrounds(data, names)} if data else {}
    made = 0
    for number in numbers:
        folder = out / f"j{number:05d}"
        if not (folder / "meta.json").exists():
            save(judged_patient(protocol, number, backgrounds), folder, folder.name)
            made += 1
    return made


def build_judged(
    out: Path,
    version: str,
    count: int,
    data: Path | None,
    workers: int | None = None,
    *,
    injured: bool = False,
) -> int:
    """The first `count` patients of a frozen protocol's judged set into `out`; returns those made.

    Their order is random, so the first ones are a fair sample. `data`: holds the anatomies that
    the protocol names. `injured`: those without any injury are left out.
    """
    from triage.simulate.protocol import load
    from triage.simulate.strata import stratum_of

    protocol, workers = load(version), workers or os.cpu_count() or 1
    numbers = [n for n in range(count) if not injured or stratum_of(protocol.judged(n).stratum)]
    tasks = [(out, version, numbers[k::workers], data) for k in range(workers)]
    with mp.get_context("spawn").Pool(workers) as pool:
        return sum(pool.imap_unordered(_judged_work, tasks))
