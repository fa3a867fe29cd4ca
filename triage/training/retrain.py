"""`triage train`: from a data set on disk to a bundle, stage by stage; every stage resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from triage.decision.table import CutoffTable
from triage.inference.networks import Networks, choose_device, load_networks
from triage.nets.bundle import MANIFEST, find_bundle
from triage.settings import settings
from triage.training import assemble, cases, features, members, parts, scoring, start
from triage.training.certify import certify, neutral, with_kept
from triage.training.dataset import labelled, prepare
from triage.training.folds import TRAIN_ONLY, digest, make_split, trained_before
from triage.training.job import Found, Job, Log, Options, Tell
from triage.training.layout import CALIBRATION, LayoutError, Patient, read_layout
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
    job = Job(options, out, work, device, log, tell, read_layout(data, strict=strict))
    if out.exists() and not (out / MANIFEST).is_file():
        raise ValueError(f"{out} is there and no bundle: choose another --out")
    for note in job.data.notes:
        log(note)
    if "trunk" in options.networks:  # every member stands on it
        options = replace(options, targets=job.data.targets)
        job.options = options
    if strange := [t for t in options.targets if t not in job.data.targets]:
        raise LayoutError(data / "train.csv", 1, f"no labels of {', '.join(strange)}")
    _same_options(job)
    begin = _start(options)
    job.added = _simulated(job)
    _prepare(job, begin.base)
    if "localiser" in options.networks:
        begin = replace(begin, base=replace(begin.base, localiser=parts.localiser(job)))
        _prepare(job, begin.base)
    if "trunk" in options.networks:
        begin = start.from_trunk(parts.trunk(job, begin), begin)
    fresh = {t: _members(job, begin, t) for t in job.options.targets}
    if "volume" in options.networks:
        begin = replace(begin, base=replace(begin.base, volume=parts.volume(job)))
    nets = _draft(job, begin, fresh)
    found = _certify(job, begin, nets, tuple(fresh))
    return write_trained(job, begin, nets, found)


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

    more = (settings().threads or os.cpu_count() or 1) - 1  # processes beside this one
    write_dataset(folder, count, job.options.seed + 1, enriched=0.4, workers=more, progress=step)
    return tuple(replace(p, person=f"simulated {p.person}") for p in read_layout(folder).patients)


def _prepare(job: Job, base: Networks) -> None:
    """Cache all series, and split the persons that have one."""
    workers = settings().threads or os.cpu_count() or 1
    every = replace(job.data, patients=(*job.data.patients, *job.added))
    job.entries, job.left_out = prepare(
        every, job.work / "cache", base.localiser, workers=workers, tell=job.tell
    )
    if job.left_out:
        job.log(f"{len(job.left_out)} series left out: {', '.join(job.left_out[:20])}")
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


def _draft(job: Job, begin: start.Start, fresh: Mapping[Target, start.Trained]) -> Networks:
    """The networks as they will be stored (fp16), with cutoffs that say nothing."""
    slices = start.assembled(begin, fresh)
    answered = [t for t in TARGETS if slices.members[t]]
    assemble.write(
        job.work / "draft",
        version="0",
        localiser=begin.base.localiser,
        slices=slices,
        volume=begin.base.volume,
        sequence=start.kept_heads(begin, tuple(fresh)),
        cutoffs=CutoffTable("simulated", {t: neutral() for t in answered}),
        provenance={},
        card="Draft: not calibrated.",
        extra={},
    )
    return load_networks(job.work / "draft", job.device)


def _certify(job: Job, begin: start.Start, nets: Networks, fresh: tuple[Target, ...]) -> Found:
    """Score by the very way that serves; fuse out of fold, calibrate on the calibration share."""
    changed = bool(set(job.options.networks))
    answering = [t for t in job.data.targets if nets.slices.members[t]]
    refitted = tuple(t for t in answering if t in fresh or changed)
    one_fold = bool({"volume", "trunk"} & set(job.options.networks))
    own = [e for e in job.entries if job.split.where[e.person] != TRAIN_ONLY]
    volumes = [e for e in own if e.is_volume]
    judged = volumes or own  # the service judges volumes: where there are any, they decide
    path = job.work / f"scores_{nets.ref.sha256[:12]}.csv"
    done = scoring.whole_series(path, len(refitted))
    for i, entry in enumerate(judged):
        case = cases.case_of(entry)
        if (case.patient_id, case.series_id) not in done:
            seen, place = cases.look(case, nets, refitted), job.split.where[entry.person]
            new: list[cases.Row] = []
            for t in refitted:
                alone = place if isinstance(place, int) and t in fresh else None
                new += cases.rows_of(case, seen, targets=[t], member=alone)
            scoring.append(path, scoring.FIELDS, new)
        job.tell(f"scored {i + 1} of {len(judged)} series", (i + 1) / len(judged))
    rows = scoring.read(path)
    where = {e.patient_id: job.split.where[e.person] for e in judged}
    calibration = [r for r in rows if where[str(r["patient_id"])] == CALIBRATION]
    # A volume net or trunk trained here never saw fold 0, and only fold 0.
    folds = [0] if one_fold else range(job.split.folds)
    before = trained_before(begin.base.folder, begin.base.manifest)
    held_out = {e.patient_id for e in judged if where[e.patient_id] in folds}
    seen_before = held_out & {e.patient_id for e in judged if digest(e.person) in before}
    out_of_fold = [r for r in rows if r["patient_id"] in held_out - seen_before]
    simulated = any(e.simulated for e in judged if job.split.calibrates(e.person))
    certified = certify(
        calibration,
        out_of_fold,
        refitted,
        calibrated_on="simulated" if simulated or not calibration else "real",
        images_only=not volumes,
    )
    if seen_before:
        note = (
            f"{len(seen_before)} patients trained the bundle that this one began from: their scores"
            " are not out of fold, and neither fuse nor evaluate"
        )
        certified = replace(certified, notes=(*certified.notes, note))
    for note in certified.notes:
        job.log(note)
    kept = [t for t in TARGETS if nets.slices.members[t] and t not in refitted]
    base = CutoffTable.from_bundle(begin.base.folder)
    table = with_kept(certified.table, base, kept, changed)
    return Found(certified, table, out_of_fold, calibration, refitted)
