"""The networks that all targets share, trained on a data set: localiser, trunk, volume net.

They never see a calibration person, nor fold 0: what is fused is fitted on fold 0 alone then.
"""

from __future__ import annotations

from pathlib import Path

from triage.nets.localiser import Localiser
from triage.nets.slice_net import JointSliceNet
from triage.nets.volume_net import VolumeNet
from triage.training import localiser as localisers
from triage.training import loop
from triage.training import trunk as trunks
from triage.training import volume as volumes
from triage.training.cache import Entry
from triage.training.job import Job
from triage.training.slices import samples_of
from triage.training.start import Start

# Steps where the options do not say otherwise.
STEPS = {"localiser": 1500, "trunk": 1500, "volume": 1500}


class PartError(ValueError):
    """The data cannot train this network."""


def _steps(job: Job, name: str) -> int:
    return int(job.options.steps.get(name, STEPS[name]))


def localiser(job: Job) -> Localiser:
    """The localiser, on the series whose organs were segmented."""
    own = [e for e in job.inside(without_fold=0) if e.is_volume and e.meta.get("organs_given")]
    if not own:
        raise PartError("localiser: expected volumes with segmentations/<series_id>.nii.gz")
    folder = job.work / "localiser"
    return localisers.train(
        own,
        folder,
        steps=_steps(job, "localiser"),
        seed=job.options.seed + 1,
        device=job.device,
        log=job.log,
    ).cpu()


def trunk(job: Job, begin: Start) -> JointSliceNet:
    """The trunk of all slice ensembles, fine-tuned with a head a target."""
    own = job.inside(without_fold=0)
    samples = [s for i, e in enumerate(own) for s in samples_of(i, e)]
    task = trunks.TrunkTask(own, samples, None)
    features = begin.net.features.state_dict()
    if begin.net.padding != task.net.net.padding:
        raise PartError(
            f"trunk: expected weights with padding {task.net.net.padding!r},"
            f" got {begin.net.padding!r}"
        )
    task.net.net.features.load_state_dict(features)
    plan = loop.Plan(_steps(job, "trunk"), 20, job.options.seed + 2, clip=2.0)
    loop.train(task, job.work / "trunk", plan, loop.Habits(job.device), log=job.log)
    return task.net.cpu()


def volume(job: Job) -> VolumeNet:
    """The volume net, on volumes whose injuries are masked (or that have none)."""
    own = [e for e in job.inside(without_fold=0) if e.is_volume and _masked(e)]
    if not any(any(e.meta["grades"].values()) for e in own):
        raise PartError(
            "volume: expected volumes with lesions/<series_id>_<target>.nii.gz; patient labels"
            " alone do not train it"
        )
    folder: Path = job.work / "volume"
    return volumes.train(
        own,
        folder,
        steps=_steps(job, "volume"),
        seed=job.options.seed + 3,
        device=job.device,
        log=job.log,
    ).cpu()


def _masked(entry: Entry) -> bool:
    return entry.masks_known or not any(entry.meta["grades"].values())
