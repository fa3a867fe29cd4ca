"""What the quality networks learn from: simulated patients and label maps, on a coarse grid.

One file a person (`.npz`): `hu` int16 (X, Y, Z) of 4.5 x 4.5 x 6 mm, RAS+; `level` float32 (Z,),
the vertebral level of each slice (NaN: not known); `region` int8 (Z,), index of `REGIONS` (-1: not
known or between two). Nothing in it is a real CT: those stay for the test.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from triage.files import write_atomic
from triage.imaging.coarse import COARSE_MM, coarse
from triage.nets.quality_nets import LEVEL_NAMES, REGIONS
from triage.simulate.label_names import LABEL_NAMES
from triage.training.cache import Entry
from triage.types import ORGAN_LABEL, Organ

HEAD, CHEST, ABDOMEN, PELVIS, THIGH = range(len(REGIONS))
SEGMENT_MM = 35.0  # vertebra to vertebra of the parametric standard person (simulate.skeleton)
L3_MM = 4.0  # height of the middle of its third lumbar vertebra
LEAST_MM2 = 300.0  # area of an abdominal organ that makes a slice one of the abdomen
INNER = (Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT, Organ.BOWEL)
L3 = LEVEL_NAMES.index("L3")


@dataclass(frozen=True)
class Person:
    """One coarse scan with the truth about its slices."""

    name: str
    anatomy: str  # people of one anatomy stay on one side of every split
    phase: str
    hu: NDArray[np.int16]  # (X, Y, Z)
    level: NDArray[np.float32]  # (Z,)
    region: NDArray[np.int8]  # (Z,)


def save(person: Person, folder: Path) -> None:
    import io

    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        hu=person.hu,
        level=person.level,
        region=person.region,
        about=np.array(json.dumps([person.name, person.anatomy, person.phase])),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{person.name}.npz", stream.getvalue())


def load(folder: Path, leave_out: Iterable[str] = ()) -> list[Person]:
    """All people of a folder, in a stable order, but those of the anatomies `leave_out`."""
    out, without = [], set(leave_out)
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as data:
            name, anatomy, phase = json.loads(str(data["about"]))
            if anatomy not in without:
                person = Person(name, anatomy, phase, data["hu"], data["level"], data["region"])
                out.append(person)
    return out


def from_entry(entry: Entry) -> Person:
    """A simulated patient of a cached set. Levels are known of parametric people alone."""
    truth = entry.meta["truth"]
    hu = torch.from_numpy(np.array(entry.hu)).permute(2, 1, 0)[None]  # (1, X, Y, Z)
    small = coarse(hu)
    labels = np.asarray(entry.labels[0])  # (Z, Y, X)
    depth = small.shape[2]
    inner = np.isin(labels, [ORGAN_LABEL[o] for o in INNER]).sum((1, 2)) * 1.5**2
    organs = inner[: 2 * depth].reshape(depth, 2).min(1) > LEAST_MM2
    any_organ = inner[: 2 * depth].reshape(depth, 2).max(1) > 0
    level = np.full(depth, np.nan, np.float32)
    region = np.where(organs, ABDOMEN, -1).astype(np.int8)
    body = truth.get("person")
    if body and truth["anatomy"] == "parametric":
        z = float(entry.meta["origin"][2]) + COARSE_MM[2] * np.arange(depth) + 1.5
        high = z / float(body["stretch"])  # in the standard person
        level = (L3 - (high - L3_MM) / SEGMENT_MM).astype(np.float32)
        region[(high > 150) & ~any_organ] = CHEST
        region[high < -75] = -1
        region[(high < -90) & (high > -232)] = PELVIS
        region[high < -250] = THIGH
    return Person(
        entry.folder.name, truth["anatomy"], str(entry.phase), _int16(small), level, region
    )


def from_labels(path: Path, seed: Sequence[int], phase: str) -> Person:
    """A whole person from a label map of the 117-structure convention, rendered in a phase.

    A plain rendering: the mean HU of each tissue, shells of bone, noise; on this grid no vessel of
    an organ would be seen.
    """
    from triage.simulate import background
    from triage.simulate.contrast import phase_table
    from triage.simulate.fields import Dice, blur, member
    from triage.simulate.tissues import Tissue
    from triage.types import Phase

    anatomy = path.name.split("_labels")[0]
    dice = Dice(list(seed))
    whole = background.load(None, path, anatomy)
    labels = whole.labels
    table = phase_table(Phase(phase), dice)
    hu = torch.zeros(labels.shape)
    for tissue, value in table.items():
        hu.masked_fill_(labels == int(tissue), float(value))
    bone = member(labels, (Tissue.BONE, Tissue.VERTEBRA)).float()
    shell = (2 * blur(bone, whole.spacing, 1.6) - 1).clamp(0, 1)
    hu += bone * dice.uniform(250, 560) * (1 - shell) ** 2
    size = [round(n * s / c) for n, s, c in zip(hu.shape, whole.spacing, COARSE_MM, strict=True)]
    small = torch.nn.functional.interpolate(hu[None, None], size, mode="area")[0, 0]
    small += dice.uniform(2, 12) * dice.randn(small.shape)
    level, region = label_truth(path, small.shape[2])
    name = f"{anatomy}_{phase}_{seed[-1]}"
    return Person(name, anatomy, phase, _int16(small), level, region)


def label_truth(path: Path, depth: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Level and region of each of `depth` slices of 6 mm of a label map (117 structures)."""
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(path))
    ids = np.asarray(image.dataobj).astype(np.int16)
    step = float(np.linalg.norm(image.affine[:3, 2]))
    area = float(np.linalg.norm(image.affine[:3, 0]) * np.linalg.norm(image.affine[:3, 1]))
    own = (np.arange(ids.shape[2], dtype=np.float64) + 0.5) * step  # mm
    want = (np.arange(depth, dtype=np.float64) + 0.5) * COARSE_MM[2]
    level = levels_at(ids, own, want)
    names = ("spleen", "kidney_right", "kidney_left", "liver", "stomach", "small_bowel", "colon")
    inner = np.isin(ids, _ids(*names)).sum((0, 1)) * area
    hips = np.isin(ids, _ids("hip_left", "hip_right")).any((0, 1))
    lowest_hip = own[hips][0] if hips.any() else -np.inf
    organs, no_organ = np.interp(want, own, inner) > LEAST_MM2, np.interp(want, own, inner) == 0
    region = np.full(depth, -1, np.int8)
    s1 = float(LEVEL_NAMES.index("S1"))
    region[organs & (level < s1 - 0.3)] = ABDOMEN
    region[no_organ & (level < 12)] = CHEST
    region[(level > s1 + 0.3) & (want > lowest_hip + 6)] = PELVIS
    region[want < lowest_hip - 6] = THIGH
    return level, region


def levels_at(
    ids: NDArray[np.int16], own: NDArray[np.float64], want: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Levels at the heights `want` (mm) from vertebrae labelled in slices at the heights `own`.

    Linear between the bodies' centroids; beyond the first and last whole one it goes on with the
    spacing of the nearest two, below L5 with 35 mm.
    """
    known = []
    for level, name in enumerate(LEVEL_NAMES[:-1]):
        count = (ids == LABEL_NAMES.index(f"vertebrae_{name}") + 1).sum((0, 1))  # (Z,)
        seen = np.flatnonzero(count)
        cut = len(seen) and (seen[0] == 0 or seen[-1] == len(own) - 1)
        if count.sum() * (own[1] - own[0]) > 0 and not cut:
            known.append((float((count * own).sum() / count.sum()), float(level)))
    known.sort()
    z, v = np.array(known).T
    out = np.interp(want, z, v)
    low, high = want < z[0], want > z[-1]
    out[low] = v[0] + (z[0] - want[low]) / SEGMENT_MM
    gap = (z[-1] - z[-3]) / 2 if len(z) > 2 else SEGMENT_MM
    out[high] = v[-1] - (want[high] - z[-1]) / gap
    return np.asarray(out, np.float32)


def _ids(*names: str) -> list[int]:
    return [LABEL_NAMES.index(name) + 1 for name in names]


def _int16(hu: torch.Tensor) -> NDArray[np.int16]:
    return np.asarray(hu.round().to(torch.int16).numpy())
