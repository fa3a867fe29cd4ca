"""The networks that all targets share, trained on a data set: localiser, trunk, volume net.

They never see a calibration person, nor fold 0: what is fused is fitted on fold 0 alone then. Each
goes on from the network of the bundle that the training starts from, where it is of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from triage.nets.localiser import Localiser
from triage.nets.slice_net import JointSliceNet
from triage.nets.volume_net import VolumeNet
from triage.training import localiser as localisers
from triage.training import loop
from triage.training import trunk as trunks
from triage.training import volume as volumes
from triage.training.cache import Entry
from triage.training.checkpoint import trained_weights
from triage.training.job import Job
from triage.training.slices import samples_of
from triage.training.start import Start
from triage.types import TARGETS

# Steps where the options do not say otherwise.
STEPS = {"localiser": 1500, "trunk": 1500, "volume": 1500}
IMAGES = "single images (.png, .jpg) train slice ensembles only"


class PartError(ValueError):
    """The data cannot train this network."""


def check(job: Job) -> None:
    """Raises PartError at once, not after hours, where the data cannot train what is asked for."""
    if "localiser" in job.options.networks:
        _segmented(job.entries)
    if "volume" in job.options.networks:
        _masked(job.entries)


def _steps(job: Job, name: str) -> int:
    return int(job.options.steps.get(name, STEPS[name]))


def _go_on(net: nn.Module, base: nn.Module, job: Job, name: str) -> None:
    """Start from the bundle's network where it is of the same kind and size."""
    own, given = net.state_dict(), base.state_dict()
    if type(net) is type(base) and {k: v.shape for k, v in own.items()} == {
        k: v.shape for k, v in given.items()
    }:
        net.load_state_dict(given)
        job.log(f"{name}: goes on from the bundle's")
    else:
        job.log(f"{name}: starts anew, the bundle's is of another kind")


def _segmented(entries: Sequence[Entry]) -> list[Entry]:
    """Series whose organs were segmented."""
    own = [e for e in entries if e.is_volume and e.meta.get("organs_given")]
    if not own:
        raise PartError(
            f"localiser: expected volumes with segmentations/<series_id>.nii.gz; {IMAGES}"
        )
    return own


def localiser(job: Job, begin: Start) -> Localiser:
    """The localiser; one process trains it, a piece a step cannot be shared."""
    own, seed = _segmented(job.inside(without_fold=0)), job.options.seed + 1
    folder = job.work / "localiser"
    torch.manual_seed(seed)
    task = localisers.LocaliserTask(own)
    _go_on(task.net, begin.base.localiser, job, "localiser")
    if job.ranks.first:
        plan = loop.Plan(_steps(job, "localiser"), 1, seed)
        habits = loop.Habits(job.device, save_every=25, alone=True)
        loop.train(task, folder, plan, habits, log=job.log, progress=job.tell)
    job.ranks.meet()
    task.net.load_state_dict(trained_weights(folder / "localiser.pt"))
    return task.net.cpu().eval()


def trunk(job: Job, begin: Start) -> JointSliceNet:
    """The trunk of all slice ensembles, fine-tuned with a head a target."""
    own = job.inside(without_fold=0)
    samples = [s for i, e in enumerate(own) for s in samples_of(i, e)]
    seen = {(s.target, s.label) for s in samples}
    if lacking := [f"{t} {'with' if y else 'without'}" for t in TARGETS for y in (0, 1)
                   if (t, y) not in seen]:  # fmt: skip
        raise PartError(
            "trunk: all five targets train it, and there are no slices of: "
            f"{', '.join(lacking)} injury; --add-simulated has some of each"
        )
    torch.manual_seed(job.options.seed + 2)
    frozen = 4 if begin.pretrained else 0  # random blocks must learn
    task = trunks.TrunkTask(own, samples, None, frozen, begin.pooling)
    if begin.net.padding != task.net.net.padding:
        raise PartError(
            f"trunk: expected weights with padding {task.net.net.padding!r},"
            f" got {begin.net.padding!r}"
        )
    task.net.net.features.load_state_dict(begin.net.features.state_dict())
    plan = loop.Plan(_steps(job, "trunk"), 20, job.options.seed + 2, clip=2.0)
    habits = loop.Habits(job.device)
    loop.train(task, job.work / "trunk", plan, habits, log=job.log, progress=job.tell)
    return task.net.cpu()


def _masked(entries: Sequence[Entry]) -> list[Entry]:
    """Volumes whose injuries are masked, or that have none."""
    own = [e for e in entries if e.is_volume and _known(e)]
    if not any(any(e.meta["grades"].values()) for e in own):
        raise PartError(
            "volume: expected volumes with lesions/<series_id>_<target>.nii.gz; patient labels"
            f" alone do not train it, and {IMAGES}"
        )
    return own


def volume(job: Job, begin: Start) -> VolumeNet:
    """The volume net."""
    seed = job.options.seed + 3
    torch.manual_seed(seed)
    given = begin.base.volume.architecture
    task = volumes.VolumeTask(_masked(job.inside(without_fold=0)), deep=given["deep"])
    base = VolumeNet(given["width"], deep=given["deep"])
    base.take_up(begin.base.volume.state_dict())
    _go_on(task.net, base, job, "volume")
    plan, habits = loop.Plan(_steps(job, "volume"), 10, seed), loop.Habits(job.device)
    loop.train(task, job.work / "volume", plan, habits, log=job.log, progress=job.tell)
    return task.net.cpu()


def _known(entry: Entry) -> bool:
    return entry.masks_known or not any(entry.meta["grades"].values())
