"""From the layout on disk to cached series: decoded, resampled and localised once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing as mp
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from triage.dicom import decode, open_study
from triage.imaging.resample import to_grid
from triage.imaging.volume import AIR_HU, straightened, to_volume
from triage.imaging.windows import WINDOWS
from triage.inference.localise import localise
from triage.inference.scope import ARTERIAL_ABOVE, DELAYED_BELOW, PLAIN_BELOW, judge_scope
from triage.nets.localiser import Localiser, localiser_of
from triage.reasons import NotAnalysed
from triage.settings import settings
from triage.training.cache import Entry, body_square
from triage.training.layout import DataSet, Patient, SeriesFiles
from triage.types import ORGAN_LABEL, TARGETS, Organ, Phase, Target, Volume

# Images of 8 bits carry no HU. The RSNA slices that people pass on as JPEG show the usual abdominal
# window (W 400 L 40, -160..240 HU): fat has grey 39 (-99 HU), and the aorta is within 5 HU of the
# aortic_hu of train_series_meta.csv. Grey 0 is -160 HU or anything below: it becomes air.
GREY_WINDOW = WINDOWS["soft_tissue"]
FIELD_MM = 400.0  # a guess, to tell the body from tubes beside it; nothing is measured with it
FORMAT = 1  # of the cache

Tell = Callable[[str, float], None]


class SeriesError(Exception):
    """This series cannot be used; the text says why."""


@dataclass(frozen=True)
class Opened:
    """A series in memory: HU on the working grid (1, X, Y, Z), or single slices with a guess."""

    grid: MetaTensor
    volume: Volume | None  # None for images
    simulated: bool


def open_series(files: SeriesFiles) -> Opened:
    """Decode one series by the very way of the service. Raises SeriesError."""
    if files.kind == "images":
        return Opened(read_images(files.files), None, False)
    try:
        with open_study(files.folder, settings()) as study:
            series = study.series[0]
            volume = straightened(to_volume(decode(series, settings())))
    except NotAnalysed as refusal:
        raise SeriesError(refusal.code) from refusal
    return Opened(to_grid(volume), volume, series.simulated)


def read_images(paths: Sequence[Path]) -> MetaTensor:
    """Grey slices as HU (1, X, Y, S), front towards +y, the patient's right towards +x.

    8 bits stand for `GREY_WINDOW`. Raises SeriesError for other depths and mixed sizes.
    """
    from PIL import Image, UnidentifiedImageError

    planes = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.mode not in ("L", "RGB", "P"):
                    raise SeriesError(f"{path.name} has mode {image.mode}, not 8 bits of grey")
                planes.append(np.asarray(image.convert("L")))
        except (OSError, UnidentifiedImageError) as error:
            raise SeriesError(f"{path.name} cannot be read ({type(error).__name__})") from error
    if len({p.shape for p in planes}) != 1:
        raise SeriesError("images of different sizes")
    grey = np.stack(planes)[:, ::-1, ::-1].astype(np.float32)  # (S, Y, X)
    hu = np.where(grey > 0, GREY_WINDOW.low + grey / 255 * GREY_WINDOW.width, AIR_HU)
    pixel = FIELD_MM / hu.shape[2]
    affine = torch.diag(torch.tensor([pixel, pixel, 100.0, 1.0], dtype=torch.float64))
    voxels = torch.from_numpy(np.ascontiguousarray(hu.T, dtype=np.float32))
    return MetaTensor(voxels[None], affine=affine)


def on_grid(mask: Path, volume: Volume, grid: MetaTensor) -> NDArray[np.uint8]:
    """A mask file on the working grid, uint8 (X, Y, Z), nearest voxel.

    The mask must lie on the voxels of the series, whatever the order of its axes. Raises
    SeriesError where it does not.
    """
    image = nib.as_closest_canonical(nib.load(mask))
    values = np.asarray(image.dataobj).astype(np.uint8)
    if values.shape != tuple(volume.hu.shape[1:]):
        raise SeriesError(
            f"{mask.name} has {values.shape} voxels, its series {tuple(volume.hu.shape[1:])}"
        )
    origin, step = volume.hu.affine[:3, 3].numpy(), np.array(volume.spacing)
    first, pitch = grid.affine[:3, 3].numpy(), np.array([float(p) for p in grid.pixdim])
    for axis in range(3):
        at = (first[axis] + pitch[axis] * np.arange(grid.shape[axis + 1]) - origin[axis]) / step[
            axis
        ]
        index = np.rint(at).astype(int)
        inside = (index >= 0) & (index < values.shape[axis])
        values = values.take(index.clip(0, values.shape[axis] - 1), axis)
        shape = [1, 1, 1]
        shape[axis] = -1
        values = values * inside.reshape(shape).astype(np.uint8)
    return values


def prepare(
    data: DataSet,
    work: Path,
    localiser: Localiser,
    *,
    workers: int = 1,
    tell: Tell = lambda name, share: None,
) -> tuple[list[Entry], list[str]]:
    """Cache every series below `work`; returns the entries, and which series were left out, why.

    Goes on where it was interrupted; a series whose files or localiser changed is made anew.
    """
    tasks = [(p, s) for p in data.patients for s in p.series]
    state = {k: v.cpu() for k, v in localiser.state_dict().items()}
    entries, left_out = [], []
    with _results(tasks, work, state, localiser.architecture, workers) as results:
        for i, (folder, problem) in enumerate(results):
            patient, files = tasks[i]
            if problem is None:
                entries.append(Entry(folder, json.loads((folder / "meta.json").read_text())))
            else:
                left_out.append(f"{patient.patient_id}/{files.series_id} ({problem})")
            tell(f"prepared {i + 1} of {len(tasks)} series", (i + 1) / len(tasks))
    return entries, left_out


_NET: list[Localiser] = []


def _start(state: dict[str, torch.Tensor], kind: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    _load(state, kind)


def _load(state: dict[str, torch.Tensor], kind: dict[str, Any]) -> None:
    net = localiser_of(kind)
    net.load_state_dict(state)
    _NET[:] = [net.eval()]


Task = tuple[Patient, SeriesFiles]


@contextmanager
def _results(
    tasks: list[Task],
    work: Path,
    state: dict[str, torch.Tensor],
    kind: dict[str, Any],
    workers: int,
) -> Iterator[Iterator[tuple[Path, str | None]]]:
    sha = hashlib.sha256(b"".join(v.numpy().tobytes() for v in state.values())).hexdigest()
    jobs = ((p, s, work, sha) for p, s in tasks)
    volumes = sum(s.kind == "dicom" for _, s in tasks)
    if workers <= 1 or volumes < 4:  # images are read in no time
        _load(state, kind)
        yield map(_one, jobs)
    else:
        pool = mp.get_context("spawn").Pool(workers, _start, (state, kind))
        with pool:
            yield pool.imap(_one, jobs)


def _one(job: tuple[Patient, SeriesFiles, Path, str]) -> tuple[Path, str | None]:
    patient, files, work, sha = job
    folder = work / f"{patient.patient_id}_{files.series_id}"
    key = _key(patient, files, sha)
    stored = folder / "meta.json"
    if stored.exists() and json.loads(stored.read_text()).get("key") == key:
        return folder, None
    part = work / f".{folder.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        meta = _write(patient, files, part, _NET[0])
    except (SeriesError, NotAnalysed) as problem:
        shutil.rmtree(part, ignore_errors=True)
        text = problem.code if isinstance(problem, NotAnalysed) else str(problem)
        return folder, text
    (part / "meta.json").write_text(json.dumps({**meta, "key": key}))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder, None


def _key(patient: Patient, files: SeriesFiles, localiser: str) -> str:
    """Changes when anything does that the cached series depends on."""
    masks = [files.segmentation, *files.lesions.values()]
    stats = [p.stat() for p in (*files.files, *(m for m in masks if m))]
    told = [
        FORMAT,
        localiser if files.kind == "dicom" else "",
        [(s.st_size, s.st_mtime_ns) for s in stats],
        {t.value: g for t, g in patient.grades.items()},
        patient.any_injury,
        patient.person,
        {t.value: sorted(n) for t, n in files.images.items()},
        files.aortic_hu,
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _write(patient: Patient, files: SeriesFiles, out: Path, net: Localiser) -> dict[str, Any]:
    """Arrays of one series into `out`; returns its meta data."""
    opened = open_series(files)
    x, y, side = body_square(opened.grid)
    meta: dict[str, Any] = {
        "kind": "volume" if opened.volume else "images",
        "patient_id": patient.patient_id,
        "series_id": files.series_id,
        "person": patient.person,
        "simulated": patient.simulated or opened.simulated,
        "grades": {t.value: g for t, g in patient.grades.items()},
        "any_injury": patient.any_injury,
        "phase": phase_of(files.aortic_hu).value,
        "body": [x, y, side],
        "known": [],
        "masks_known": False,
        "truth": {"lesions": patient.truth.get("lesions", [])},
    }
    hu = opened.grid.as_tensor()[0]  # (X, Y, Z)
    np.save(out / "hu.npy", hu.permute(2, 1, 0).round().to(torch.int16).numpy())
    if opened.volume is None:
        numbers = [int(p.stem) if p.stem.isdigit() else -1 for p in files.files]
        meta["shows"] = {
            t.value: [i for i, n in enumerate(numbers) if n in shown]
            for t, shown in files.images.items()
        }
        return meta
    labels, more = _labels(patient, files, opened, net)
    np.save(out / "labels.npy", labels.transpose(0, 3, 2, 1))
    return meta | more


def _labels(
    patient: Patient, files: SeriesFiles, opened: Opened, net: Localiser
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Organ labels and lesion bits (2, X, Y, Z), and what is known of them."""
    if opened.volume is None:
        raise ValueError("Expected a volume")
    anatomy = localise(net, opened.grid)
    scope = judge_scope(opened.grid, anatomy)
    organs, known = anatomy.labels.as_tensor()[0].numpy(), tuple(Organ)
    if files.segmentation is not None:
        told = patient.truth.get("segmentation_labels")
        organs, known = given_organs(on_grid(files.segmentation, opened.volume, opened.grid), told)
    bits = np.zeros_like(organs)
    for target, path in files.lesions.items():
        lesion = on_grid(path, opened.volume, opened.grid) > 0
        bits |= lesion.astype(np.uint8) << TARGETS.index(target)
    injured = {t for t, g in patient.grades.items() if g > 0}
    told_phase = patient.truth.get("phase")
    return np.stack([organs, bits]), {
        "known": [o.value for o in known],
        "organs_given": files.segmentation is not None,
        "masks_known": patient.simulated and injured <= set(files.lesions),
        "origin": [float(v) for v in opened.grid.affine[:3, 3]],
        "phase": told_phase or scope.phase.value,
        "shows": _shown(files, opened.volume, opened.grid),
    }


def given_organs(
    values: NDArray[np.uint8], told: Mapping[str, int] | None
) -> tuple[NDArray[np.uint8], tuple[Organ, ...]]:
    """Label values of a segmentation file -> those of `ORGAN_LABEL`, and the organs in it."""
    from triage.simulate.study import SEGMENTATION

    meaning = {int(v): Organ(o) for o, v in (told or {}).items()} or {
        v: o for o, v in SEGMENTATION.items()
    }
    lookup = np.zeros(256, dtype=np.uint8)
    present = np.unique(values)
    for value, organ in meaning.items():
        lookup[value] = ORGAN_LABEL[organ]
    return lookup[values], tuple(o for v, o in meaning.items() if v in present)


def _shown(files: SeriesFiles, volume: Volume, grid: MetaTensor) -> dict[str, list[int]]:
    """Grid slices at the height of the instances that show an injury."""
    z = float(volume.hu.affine[2, 3]) + volume.spacing[2] * np.arange(len(volume.instances))
    at = np.rint((z - float(grid.affine[2, 3])) / float(grid.pixdim[2])).astype(int)
    out = {}
    for target, numbers in files.images.items():
        hits = [
            k for k, i in zip(at, volume.instances, strict=True) if i.instance_number in numbers
        ]
        out[target.value] = sorted({int(k) for k in hits if 0 <= k < grid.shape[3]})
    return out


def phase_of(aortic_hu: float | None) -> Phase:
    """Phase from the HU of the aorta, with the limits of `inference.scope`."""
    if aortic_hu is None:
        return Phase.UNKNOWN
    if aortic_hu < PLAIN_BELOW:
        return Phase.PLAIN
    if aortic_hu > ARTERIAL_ABOVE:
        return Phase.ARTERIAL
    return Phase.DELAYED if aortic_hu < DELAYED_BELOW else Phase.PORTAL_VENOUS


def labelled(entries: Sequence[Entry], target: Target) -> list[int]:
    """Indices of the entries that carry a label of the target."""
    return [i for i, e in enumerate(entries) if target.value in e.meta["grades"]]
