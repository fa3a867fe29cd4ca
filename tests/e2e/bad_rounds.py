"""The malformed set through an entrance of a running service, three ways.

alone   each case by itself, one after another; then all their studies are waited for together
beside  all in batches, shuffled into the slices of a good study
inside  each as a part of its own good study, which is given the UIDs and the patient of the case
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tests.drills.house import House, house
from tests.e2e.bad_cases import GOOD, Case, Row, row_of
from tests.e2e.bad_entrances import ENTRANCES
from tests.e2e.bad_inside import inside
from tests.e2e.gate_only import LOAD, digest, read
from tests.e2e.service.running import until
from tests.fuzz.run import warm_child
from tests.fuzz.seeds import Seed, seed_of
from triage.reasons import NotAnalysed
from triage.service.intake.header import read_header
from triage.service.records import studies
from triage.service.records.models import Quarantined, Study
from triage.settings import Settings

MEMORY_MB = 700  # more than at the start, at any moment, in the service's own process
TOGETHER = 20  # bad cases that come with one good study; studies that are waited for together
SLICES = 48
Shown = dict[str, Any]  # a study as the API shows it


@dataclass
class Memory:
    """MB. `service`: the peak above what the process had at the start. `child`: the largest peak of
    a process below it, readers and what analyses."""

    service: int = 0
    child: int = 0


def memory_mb(what: str, pid: int | str = "self") -> int:
    """VmRSS: resident memory of a process; VmHWM: its peak (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(what)), 0)


@contextmanager
def watched_memory() -> Iterator[Memory]:
    found, end, before = Memory(), threading.Event(), memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew

    def look() -> None:
        while not end.wait(0.1):
            for pid in _below(os.getpid()):
                with suppress(OSError):
                    found.child = max(found.child, memory_mb("VmHWM", pid))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        end.set()
        watcher.join()
        found.service = memory_mb("VmHWM") - before


def _below(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from _below(int(child))


@contextmanager
def service_at(home: Path, load: str = LOAD) -> Iterator[tuple[House, Memory]]:
    with house(home, load=load, max_bytes=400_000_000) as at, watched_memory() as memory:
        yield at, memory
        still_up(at)


def still_up(at: House) -> None:
    assert at.client.get("/healthz").status_code == 200
    assert set(at.service.intake.checks().values()) == {"ok"}
    assert list(at.service.files.incoming.iterdir()) == []


# ---- what is there


def images(at: House) -> dict[str, tuple[int, int]]:
    """Our ids of all studies -> what changes when an image comes."""
    rows = select(Study.id, Study.images_version, Study.instance_count)
    with at.service.records.reading() as session:
        return {study: (version, count) for study, version, count in session.execute(rows)}


def refusals(at: House) -> Counter[tuple[str, str]]:
    """(id, reason) of what lies in quarantine -> how often it came."""
    rows = select(Quarantined.id, Quarantined.reason, Quarantined.times)
    with at.service.records.reading() as session:
        return Counter({(one, reason): times for one, reason, times in session.execute(rows)})


def everything_ended(at: House, seconds: float = 900) -> None:
    """Returns once no study waits."""
    pending = studies.Query(statuses=studies.PENDING, background=None)

    def look() -> bool:
        with at.service.records.reading() as session:
            return studies.count(session, pending) == 0

    until(look, seconds, "every study has ended")


def shown(at: House, study: str) -> Shown:
    found: dict[str, Any] = at.client.get(f"/api/v1/studies/{study}").json()
    return found


# ---- the three ways


@dataclass
class Told:
    """What was seen while a case was sent."""

    case: Case
    said: str
    studies: list[str]
    quarantined: list[str]


def sent(at: House, name: str, case: Case, files: Sequence[bytes]) -> Told:
    before, kept = images(at), refusals(at)
    said = ENTRANCES[name](at, files)
    now, more = images(at), refusals(at) - kept
    own = [study for study, had in now.items() if before.get(study) != had]
    return Told(case, said, own, sorted({reason for _, reason in more}))


def alone(at: House, name: str, chosen: Sequence[Case]) -> list[Row]:
    """Each case by itself."""
    told = [sent(at, name, case, case.files()) for case in chosen]
    everything_ended(at)
    return [_judged(at, name, one) for one in told]


def _judged(at: House, name: str, one: Told) -> Row:
    """Of several studies of a case each one is judged; the row is the first wrong one's, if any."""
    if not one.studies:
        answer = "kept" if one.said in ("not offered", "aborted") else "refused"
        return row_of(name, "alone", one.case, answer, tuple(one.quarantined), one.said)
    rows = [_of_study(name, "alone", one.case, shown(at, s), one.said) for s in one.studies]
    return next((row for row in rows if row.wrong), rows[0])


def _of_study(name: str, way: str, case: Case, found: Shown, said: str) -> Row:
    reason = found["reason"] or {}
    refused = found["status"] in ("not_analysed", "not_applicable")
    answer = "not_analysed" if refused else found["status"]
    row = row_of(name, way, case, answer, tuple(filter(None, [reason.get("code")])), said)
    if refused and found["targets"]:
        row.wrong = "not analysed, but with targets"
    return row


def beside(at: House, name: str, chosen: Sequence[Case], good: Seed) -> list[Row]:
    """All, shuffled in batches into good studies: those must be whole, and no other is judged."""
    dice, want, rows = random.Random(name), control(), []  # noqa: S311 - an order, no secret
    owners = {uid: case for case in chosen for uid in study_uids(case)}
    for first in range(0, len(chosen), TOGETHER):
        some = chosen[first : first + TOGETHER]
        copy, before = good.copy(dice), images(at)
        mixed = [*copy.slices, *(data for case in some for data in case.files())]
        dice.shuffle(mixed)
        said = ENTRANCES[name](at, mixed)
        everything_ended(at)
        own = [shown(at, study) for study, had in images(at).items() if before.get(study) != had]
        row = Row(name, "beside", f"good, with {len(some)} from {first}", "analysed", "analysed")
        row.note = said
        rows.append(_whole(row, shown(at, copy.study_uid), want))
        for found in own:
            uid = found["study_instance_uid"]
            if uid != copy.study_uid:
                case = owners.get(uid, Case(f"study {uid}", "not_analysed", "any"))
                rows.append(_of_study(name, "beside", case, found, ""))
    return rows


def study_uids(case: Case) -> set[str]:
    found = set()
    for data in case.files():
        with suppress(NotAnalysed):
            found.add(read_header(data).study_instance_uid)
    return found


def _whole(row: Row, found: Shown, want: str) -> Row:
    """The good study: all its slices, and the very voxels that it has by itself."""
    if found.get("status") != "analysed":
        row.answer = found.get("status", "not there")
        row.reasons = ((found.get("reason") or {}).get("code", ""),)
        row.wrong = "the good study is not analysed"
    elif found["instances"] != SLICES or found["report"]["series"][0]["slices"] != SLICES:
        row.wrong = f"{found['instances']} slices"
    elif [one["hu_sha256"] for one in found["report"]["quality"]] != [want]:
        row.wrong = "the good study has other voxels"
    return row


def inside_good(at: House, name: str, chosen: Sequence[Case]) -> list[Row]:
    """Each case in a good study of its own: refused, or whole and what is left out is said.

    Each good study has 48 images; so each entrance gets its share of the cases, and all of them
    together every case. `triage run` gets all.
    """
    share = list(ENTRANCES).index(name)
    told, want, rows = [], control(), []
    for case in chosen[share :: len(ENTRANCES)]:
        files = inside(case)
        if files:
            told.append(sent(at, name, case, files))
    everything_ended(at)
    for one in told:
        for study in one.studies or [None]:
            rows.append(_inside_row(name, one, shown(at, study) if study else {}, want))
    return rows


def _inside_row(name: str, one: Told, found: Shown, want: str) -> Row:
    row = Row(name, "inside", one.case.name, one.case.expected, found.get("status", "refused"))
    row.note = one.said
    if row.answer == "analysed":
        said = [*found["report"]["warnings"], *one.quarantined]
        got = [found_one["hu_sha256"] for found_one in found["report"]["quality"]]
        row.reasons = tuple(sorted({text.partition(":")[0][:60] for text in said}))
        if want not in got:
            row.wrong = "the good study has other voxels"
        elif not said:
            row.wrong = "something was left out, and nothing said"
    elif row.answer == "refused":
        row.wrong = "the good slices are gone"
    else:
        row.reasons = ((found["reason"] or {}).get("code", ""),)
        row.wrong = "not analysed, but with targets" if found["targets"] else ""
    return row


def good_study() -> Seed:
    return seed_of(sorted(GOOD.rglob("*.dcm")))


@lru_cache(maxsize=1)
def control() -> str:
    """What the good study's voxels are by themselves."""
    with warm_child():
        (stack,) = read(GOOD, Settings()).stacks
    return digest(stack)
