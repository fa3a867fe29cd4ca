"""What a training's own patients say of its networks: who judges whom, heads, cutoffs.

Every score comes by the very way that serves. Patients that a fold held out are judged by the
member that did not train on them; sequence heads and fusion are fitted on them, and the evaluation
in the bundle is of them. The calibration share is judged by the final networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from triage.decision.table import CutoffTable
from triage.inference.networks import Networks
from triage.nets.sequence_head import SequenceHeads
from triage.training import cases, scoring, sequence, start
from triage.training.cache import Entry
from triage.training.cases import Row
from triage.training.certify import Certified, certify, with_kept
from triage.training.checkpoint import read, save
from triage.training.folds import TRAIN_ONLY, digest, trained_before
from triage.training.job import Found, Job
from triage.training.layout_tables import CALIBRATION
from triage.training.sequence import Compared
from triage.training.studies import Study, from_plain, plain, study_of
from triage.types import TARGETS, Target

Draft = Callable[[SequenceHeads | None], Networks]


def judge(
    job: Job, begin: start.Start, draft: Draft, fresh: Sequence[Target]
) -> tuple[Networks, Found]:
    """Heads, fusion and cutoffs of new networks; `draft` writes them down with given heads."""
    kept = start.kept_heads(begin, fresh)
    nets = draft(kept)
    changed = bool(job.options.networks)
    answering = [t for t in job.data.targets if nets.slices.members[t]]
    refitted = tuple(t for t in answering if t in fresh or changed)
    held = held_out(job, begin, nets, fresh, refitted)
    folder = job.work / "sequence" / nets.ref.sha256[:12]
    width = int(kept.architecture["width"]) if kept else sequence.WIDTH
    new, compared = sequence.train_heads(held.studies, folder, width=width, log=job.log)
    if new is not None:
        nets = draft(sequence.merged(kept, new))
    rows = with_heads(held.rows, compared)
    calibration = calibration_rows(job, nets, refitted)
    certified = _certify(job, rows, calibration, refitted, held.seen_before)
    stay = [t for t in TARGETS if nets.slices.members[t] and t not in refitted]
    base = CutoffTable.from_bundle(begin.base.folder)
    table = with_kept(certified.table, base, stay, changed)
    curves = tuple(sorted(folder.glob("*.png")))
    return nets, Found(certified, table, rows, calibration, refitted, compared, curves)


def _certify(
    job: Job, rows: list[Row], calibration: list[Row], refitted: Sequence[Target], seen_before: int
) -> Certified:
    """Cutoffs, and what is to be said about them."""
    own = judged(job)
    simulated = any(e.simulated for e in own if job.split.calibrates(e.person))
    found = certify(
        calibration,
        rows,
        refitted,
        calibrated_on="simulated" if simulated or not calibration else "real",
        images_only=not any(e.is_volume for e in own),
    )
    if seen_before:
        note = (
            f"{seen_before} patients trained the bundle that this one began from: their scores"
            " are not out of fold, and neither fuse nor evaluate"
        )
        found = replace(found, notes=(*found.notes, note))
    for note in found.notes:
        job.log(note)
    return found


def judged(job: Job) -> list[Entry]:
    """Who may judge: the service judges volumes, so where there are any, they decide."""
    own = [e for e in job.entries if job.split.where[e.person] != TRAIN_ONLY]
    return [e for e in own if e.is_volume] or own


@dataclass(frozen=True)
class HeldOut:
    """Out-of-fold scores, and what the members saw (for the sequence heads; volumes only).

    `seen_before`: patients left out because they trained the bundle that the training began from.
    """

    rows: list[Row]
    studies: Mapping[Target, list[Study]]
    seen_before: int


def held_out(
    job: Job,
    begin: start.Start,
    nets: Networks,
    fresh: Sequence[Target],
    refitted: Sequence[Target],
) -> HeldOut:
    """Look at every patient that a fold held out; goes on after an interruption."""
    # Networks that all targets share never saw fold 0, and only fold 0.
    folds = [0] if job.options.networks else range(job.split.folds)
    before = trained_before(begin.base.folder, begin.base.manifest)
    waiting = [e for e in judged(job) if job.split.where[e.person] in folds]
    own = [e for e in waiting if digest(e.person) not in before]
    sha = nets.ref.sha256[:12]
    path, folder = job.work / f"held_out_{sha}.csv", job.work / "studies" / sha
    done = scoring.whole_series(path, len(refitted))
    for i, entry in enumerate(own):
        case, place = cases.case_of(entry), int(job.split.where[entry.person])
        if (case.patient_id, case.series_id) not in done:
            seen = cases.look(case, nets, refitted)
            save(folder / f"{entry.folder.name}.pt", _studies(case, seen, fresh, place))
            rows = [
                row
                for t in refitted
                for row in cases.rows_of(
                    case, seen, targets=[t], member=place if t in fresh else None
                )
            ]
            scoring.append(path, scoring.FIELDS, rows)
        job.tell(f"judged {i + 1} of {len(own)} series out of fold", (i + 1) / len(own))
    studies: dict[Target, list[Study]] = {t: [] for t in fresh if any(e.is_volume for e in own)}
    for entry in own:
        _collect(entry, folder / f"{entry.folder.name}.pt", studies)
    count = len({e.patient_id for e in waiting}) - len({e.patient_id for e in own})
    return HeldOut(scoring.read(path) if own else [], studies, count)


def _studies(
    case: cases.Case, seen: cases.Seen, fresh: Sequence[Target], fold: int
) -> dict[str, Any]:
    """What a sequence head needs of one series, as plain values: target -> views."""
    out: dict[str, Any] = {}
    if case.images or case.grid is None or seen.scope is None:
        return out
    for target in fresh:
        looked = seen.evidence.looked.get(target, [])
        if target in case.grades and target not in seen.scope.not_assessed:
            label = int(case.grades[target] > 0)
            study = study_of(looked, case.grid, case.person, label, fold)
            if study is not None:
                out[target.value] = plain(study)
    return out


def _collect(entry: Entry, path: Path, studies: Mapping[Target, list[Study]]) -> None:
    """Add the studies of one series."""
    told = read(path)
    series = entry.patient_id, str(entry.meta.get("series_id", ""))
    for target, own in studies.items():
        if target.value in told:
            own.append(from_plain(told[target.value], entry.person, series))


def with_heads(rows: Sequence[Row], compared: Mapping[Target, Compared]) -> list[Row]:
    """Out-of-fold rows with the score of a head that never saw the person, where one is kept."""
    out = []
    for row in rows:
        seen = compared.get(Target(str(row["target"])))
        key = str(row["patient_id"]), str(row["series_id"])
        if seen is not None and seen.better and key in seen.scores:
            score = round(seen.scores[key], 5)
            out.append({**row, "score": score, "ensemble": score, "sequence": score})
        else:
            out.append(row)
    return out


def calibration_rows(job: Job, nets: Networks, refitted: Sequence[Target]) -> list[Row]:
    """Scores of the calibration share by the final networks; goes on after an interruption."""
    own = [e for e in judged(job) if job.split.where[e.person] == CALIBRATION]
    path = job.work / f"scores_{nets.ref.sha256[:12]}.csv"
    done = scoring.whole_series(path, len(refitted))
    for i, entry in enumerate(own):
        case = cases.case_of(entry)
        if (case.patient_id, case.series_id) not in done:
            seen = cases.look(case, nets, refitted)
            scoring.append(path, scoring.FIELDS, cases.rows_of(case, seen, targets=refitted))
        job.tell(f"judged {i + 1} of {len(own)} series for calibration", (i + 1) / len(own))
    return scoring.read(path) if own else []
