"""One item of an archive looked at: what its voxels or pictures show, as plain values."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from triage.audit.hashes import picture_hash, text, volume_hash
from triage.audit.walk import Item
from triage.dicom import decode, open_study
from triage.imaging.artefacts import artefacts
from triage.imaging.coarse import coarse, cube, picture, small_slices
from triage.imaging.measure import measure
from triage.imaging.resample import to_grid
from triage.imaging.volume import straightened, to_volume
from triage.inference.ends import SOLID
from triage.inference.localise import localise
from triage.inference.pose import slice_regions
from triage.inference.quality import judge_quality
from triage.inference.scope import contrast_phase
from triage.nets.localiser import Localiser
from triage.nets.quality_bundle import QualityNetworks
from triage.nets.quality_nets import REGIONS, level_of
from triage.reasons import NotAnalysed
from triage.settings import Settings
from triage.types import Organ, Series

THUMB = 96  # pixels
MAX_PICTURE = 4096  # pixels a side: a larger one is no slice
Record = dict[str, Any]  # JSON values


@dataclass(frozen=True)
class Eyes:
    """What looks: the quality networks, and the localiser for phase and organs if there is one."""

    quality: QualityNetworks
    localiser: Localiser | None
    settings: Settings


def examine(item: Item, eyes: Eyes) -> list[Record]:
    """Records of an item, one a series. A file that cannot be read is a record, not an error."""
    try:
        found = _pictures(item, eyes) if item.kind == "pictures" else _volumes(item, eyes)
    except (NotAnalysed, OSError, ValueError) as error:
        found = [_refused(error)]
    same = {"key": item.key, "kind": item.kind, "path": str(item.path), "patient": item.patient}
    return [{**same, "series": item.series, **record} for record in found]


def _refused(error: Exception) -> Record:
    if isinstance(error, NotAnalysed):
        return {"refused": error.code, "detail": error.message[:200]}
    return {"refused": "UNREADABLE", "detail": str(error)[:200]}


def _volumes(item: Item, eyes: Eyes) -> list[Record]:
    """Each series by itself: one that cannot be read does not hide the others."""
    found: list[Record] = []
    with open_study(item.path, eyes.settings) as study:
        for series in study.series:
            try:
                found.append(_volume(series, eyes))
            except NotAnalysed as error:
                found.append(_refused(error))
            if item.kind == "volume" and not found[-1].get("description"):
                found[-1]["description"] = item.series[:64]  # a file's name is all that is said
    return found


def _volume(series: Series, eyes: Eyes) -> Record:
    volume = to_volume(decode(series, eyes.settings))
    measures = {**measure(volume), **artefacts(volume)}
    grid = to_grid(straightened(volume))
    quality = judge_quality(eyes.quality, grid.as_tensor(), measures, series.facts)
    record: Record = {
        "series_instance_uid": series.series_instance_uid,
        "body_part": str(series.facts.get("BodyPartExamined", ""))[:32],
        "description": str(series.facts.get("SeriesDescription", ""))[:64],
        "slices": int(volume.hu.shape[3]),
        "figures": {**measures, **quality.figures},
    }
    if eyes.localiser is not None:
        anatomy = localise(eyes.localiser, grid)
        phase, aorta = contrast_phase(grid, anatomy)
        record |= {"phase": phase.value, "aorta_hu": None if aorta is None else round(aorta, 1)}
        record["incomplete"] = [
            o.value
            for o in (*SOLID, Organ.BOWEL)
            if anatomy.volume_ml[o] > 20 and not anatomy.complete[o]
        ]
        x = [_middle_x(anatomy.labels.as_tensor()[0], label) for label in (1, 2)]
        record["liver_right"] = None if None in x else bool((x[0] or 0) > (x[1] or 0))
    hu = coarse(grid.as_tensor())
    record["hash"] = text(volume_hash(cube(hu)[0]))
    record["thumbs"] = [_thumb(s) for s in _views(hu)]
    return record


def _middle_x(labels: Tensor, value: int) -> float | None:
    where = (labels == value).nonzero()
    return float(where[:, 0].float().mean()) if len(where) > 500 else None


def _views(hu: Tensor) -> list[Tensor]:
    """Three axial slices and a coronal one, as seen from the feet and from the front; [-1, 1]."""
    slices = small_slices(hu)[:, 0]  # (z, 96, 96)
    n = len(slices)
    axial = [slices[round(q * (n - 1))].T.flip((0, 1)) for q in (0.8, 0.5, 0.2)]
    high = torch.nn.functional.interpolate(
        hu[None, None], (hu.shape[0], hu.shape[1], max(1, round(n * 6 / 4.5))), mode="trilinear"
    )[0, 0]
    front = ((high.clamp(-160, 240) - 40) / 200)[:, high.shape[1] // 2].T.flip((0, 1))
    return [*axial, _square(front)]


def _square(view: Tensor) -> Tensor:
    out = torch.full((max(view.shape),) * 2, -1.0)
    y, x = [(len(out) - n) // 2 for n in view.shape]
    out[y : y + view.shape[0], x : x + view.shape[1]] = view
    return out


def _thumb(view: Tensor) -> str:
    """A small PNG, base64."""
    grey = ((view + 1) * 127.5).clamp(0, 255).numpy().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).resize((THUMB, THUMB)).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _pictures(item: Item, eyes: Eyes) -> list[Record]:
    """A series of which only windowed pictures are left: region and level of each."""
    greys = [_grey(path) for path in item.files]
    slices = torch.cat([picture(grey) for grey in greys])
    regions, levels = slice_regions(eyes.quality, slices)
    p, (level, spread) = regions.softmax(1), level_of(levels)
    shown = [
        {
            "instance": path.stem,
            "region": REGIONS[int(p[k].argmax())],
            "outside": round(float(1 - p[k, 2] - p[k, 3]), 4),  # neither abdomen nor pelvis
            "probability": round(float(p[k].max()), 4),
            "level": round(float(level[k]), 2),
            "level_sd": round(float(spread[k]), 2),
            "hash": text(picture_hash(greys[k])),
            "thumb": _thumb(slices[k, 0].T.flip((0, 1))),
        }
        for k, path in enumerate(item.files)
    ]
    return [{"slices": len(shown), "pictures": shown}]


def _grey(path: Any) -> Tensor:
    with Image.open(path) as image:
        if max(image.size) > MAX_PICTURE:
            raise ValueError(f"{path.name} is larger than {MAX_PICTURE} pixels")
        return torch.from_numpy(np.asarray(image.convert("L")).astype(np.float32))
