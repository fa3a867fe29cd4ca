"""`triage train`: from a data set on disk to a bundle, stage by stage; every stage resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from triage.decision.table import CutoffTable, neutral
from triage.inference.engines import choose_engine
from triage.inference.networks import Networks, choose_device, load_networks
from triage.nets.bundle import MANIFEST, find_bundle
from triage.nets.sequence_head import SequenceHeads
from triage.settings import settings
from triage.training import assemble, features, members, parts, start
from triage.training.dataset import labelled, prepare
from triage.training.distributed import join
from triage.training.folds import make_split, trained_before
from triage.training.job import Job, Log, Options, Tell
from triage.training.judge import judge
from triage.training.layout import Patient, read_layout
from triage.training.layout_tables import LayoutError
from triage.training.report import write_trained
from triage.training.slices import Sample, samples_of
from triage.types import TARGETS, Target


def train(
    data: Path,
    out: Path,
    options: Options,
    *,
    work: Path | None = None,
    device: str = "auto",
    strict: bool = False,
    log: Log = print,
    tell: Tell = lambda name, share: None,
) -> Path:
    """Train what `options` ask for on a data set in the RSNA-2023 layout; writes a bundle.

    Run again after an interruption, it goes on. Raises LayoutError, SplitError, StartError,
    BundleError and ValueError for data and options that do not fit each other.
    """
    work = work or out.with_name(f"{out.name}.work")
    ranks = join(device)
    if not ranks.first:
        log, tell = _silent, _silent
    job = Job(options, out, work, device, log, tell, read_layout(data, strict=strict), ranks)
    if out.exists() and not (out / MANIFEST).is_file():
        raise ValueError(f"{out} is there and no bundle: choose another --out")
    for note in job.data.notes:
        log(note)
    if strange := [t for t in options.targets if t not in job.data.targets]:
        raise LayoutError(data / "train.csv", 1, f"no labels of {', '.join(strange)}")
    begin = _start(options)
    if "trunk" in options.networks:
        job.options = options = _with_all_members(job, begin)
    with ranks.in_turn():
        _same_options(job)
    job.added = _simulated(job)
    _prepare(job, begin.base)
    if "localiser" in options.networks:
        begin = replace(begin, base=replace(begin.base, localiser=parts.localiser(job, begin)))
        _prepare(job, begin.base)
    if "trunk" in options.networks:
        begin = start.from_trunk(parts.trunk(job, begin), begin)
    fresh = {t: _members(job, begin, t) for t in options.targets}
    if "volume" in options.networks:
        begin = replace(begin, base=replace(begin.base, volume=parts.volume(job, begin)))
    if ranks.first:
        nets, found = judge(job, begin, partial(_draft, job, begin, fresh), tuple(fresh))
        write_trained(job, begin, nets, found)
    ranks.meet()
    return out


def _silent(text: str, share: float = 0.0) -> None:
    """Other processes say nothing."""


def _with_all_members(job: Job, begin: start.Start) -> Options:
    """Every member stands on the trunk: where it is trained, they all are; says which are lost."""
    targets = job.data.targets
    lost = [t for t in TARGETS if begin.base.slices.members[t] and t not in targets]
    names = ", ".join(targets)
    job.log(f"trunk: every member and sequence head stands on it; trained anew: {names}")
    if lost:
        job.log(
            f"trunk: no labels of {', '.join(lost)}: the new bundle will not answer for them any"
            " more"
        )
    return replace(job.options, targets=targets)


def _same_options(job: Job) -> None:
    """A work folder belongs to one training."""
    path = job.work / "options.json"
    told = {**vars(job.options), "data": str(job.data.folder.resolve())}
    text = json.dumps(told, indent=1, default=str, sort_keys=True)
    if path.exists() and path.read_text() != text:
        raise ValueError(
            f"{job.work} belongs to a training with other options (options.json):"
            " give another --work, or remove it"
        )
    if not path.exists():
        job.work.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _start(options: Options) -> start.Start:
    """The networks to start from; localiser and volume net always come from a bundle."""
    given = options.init
    if given in (start.IMAGENET, start.NONE) or Path(given).suffix in (".pth", ".safetensors"):
        base = load_networks(find_bundle("reference"), "cpu")
        if given == start.NONE:
            return start.from_nothing(base, options.seed)
        path = settings().imagenet if given == start.IMAGENET else Path(given)
        if path is None:
            raise start.StartError(f"--init imagenet needs a file with weights: {start.WHERE}")
        return start.from_weights(path, base)
    return start.from_bundle(load_networks(find_bundle(given), "cpu"))


def _simulated(job: Job) -> tuple[Patient, ...]:
    """Simulated patients that only train."""
    count = job.options.add_simulated
    if not count:
        return ()
    from triage.simulate.study import write_dataset

    folder = job.work / "simulated"

    def step(done: int, total: int) -> None:
        job.tell(f"simulated {done} of {total}", done / total)

    with job.ranks.in_turn():
        if job.ranks.first:
            more = (settings().threads or os.cpu_count() or 1) - 1  # processes beside this one
            seed = job.options.seed + 1
            write_dataset(folder, count, seed, enriched=0.4, workers=more, progress=step)
    return tuple(replace(p, person=f"simulated {p.person}") for p in read_layout(folder).patients)


def _prepare(job: Job, base: Networks) -> None:
    """Cache all series, and split the persons that have one."""
    workers = settings().threads or os.cpu_count() or 1
    every = replace(job.data, patients=(*job.data.patients, *job.added))
    with job.ranks.in_turn():  # the others find everything in the cache
        job.entries, job.left_out = prepare(
            every,
            job.work / "cache",
            base.localiser,
            workers=workers if job.ranks.first else 1,
            tell=job.tell,
        )
    if job.left_out:
        job.log(f"{len(job.left_out)} series left out: {', '.join(job.left_out[:20])}")
    parts.check(job)
    alive = {e.patient_id for e in job.entries}
    options = job.options
    job.split = make_split(
        [p for p in job.data.patients if p.patient_id in alive],
        options.targets or job.data.targets,
        folds=options.folds,
        calibration=options.calibration,
        seed=options.seed,
        added=[p for p in job.added if p.patient_id in alive],
        trained=trained_before(base.folder, base.manifest),
    )
    if job.ranks.first:
        (job.work / "split.json").write_text(json.dumps(job.split.to_dict()))


def _members(job: Job, begin: start.Start, target: Target) -> start.Trained:
    """One target's new members, on cached features of the trunk that they share."""
    options = job.options
    shared, unfrozen = start.UNFROZEN[options.unfrozen]
    seed = options.seed * 10 + TARGETS.index(target)
    known: list[Sample] = []
    own = labelled(job.entries, target)
    for n, i in enumerate(own):
        if not job.split.calibrates(job.entries[i].person):
            known += samples_of(i, job.entries[i], [target])
        job.tell(f"{target}: slices of {n + 1} of {len(own)}", (n + 1) / len(own))
    chosen = features.choose(known, seed, features.room_for(begin.trunk(shared), options.size))
    job.log(f"{target}: {len(chosen)} slices, {sum(s.label for s in chosen)} with injury")
    with job.ranks.in_turn():
        cached = features.build(
            job.work / "features" / target.value,
            begin.trunk(shared),
            job.entries,
            chosen,
            size=options.size,
            seed=seed,
            device=choose_device(job.device),
            tell=lambda name, share: job.tell(f"{target}: {name}", share),
        )
    tails = members.train_members(
        target.value,
        cached,
        job.split,
        lambda k: begin.tail(target, shared, k),
        job.work / "members" / target.value,
        members.Recipe(epochs=options.epochs, unfrozen=unfrozen),
        seed=seed,
        device=job.device,
        log=job.log,
        progress=job.tell,
    )
    return start.Trained(tails, shared, options.size)


def _draft(
    job: Job,
    begin: start.Start,
    fresh: Mapping[Target, start.Trained],
    heads: SequenceHeads | None,
) -> Networks:
    """The networks as they will be stored (fp16), with cutoffs that say nothing."""
    slices = start.assembled(begin, fresh)
    answered = [t for t in TARGETS if slices.members[t]]
    assemble.write(
        job.work / "draft",
        version="0",
        localiser=begin.base.localiser,
        slices=slices,
        volume=begin.base.volume,
        sequence=heads,
        cutoffs=CutoffTable("simulated", {t: neutral() for t in answered}),
        provenance={},
        card="Draft: not calibrated.",
        extra={},
    )
    where, options = choose_device(job.device), settings()
    engine = choose_engine(options.engine, where, threads=options.threads)  # compiles, stores not
    return load_networks(job.work / "draft", job.device, engine)
