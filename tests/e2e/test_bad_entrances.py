"""Malformed input through every entrance, alone and beside a good study: the service stays up, its
memory bounded, the good study is right, and the bad one has its reason and no verdict."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.drills  # noqa: F401 - so that modules of tests/service are found
from tests.drills.house import House, house
from tests.e2e.bad_entrances import ENTRANCES, files_of
from tests.e2e.gate_only import LOAD
from tests.e2e.service.running import until
from tests.fuzz.judge import Control, judged
from tests.fuzz.run import warm_child
from tests.fuzz.seeds import Seed, seed_of
from triage.nets.bundle import MANIFEST, BundleError, find_bundle, verify
from triage.reasons import REASONS
from triage.service.records import quarantine, studies
from triage.settings import Settings

ROOT = Path(os.environ.get("TRIAGE_TEST_DATA", Path(__file__).parents[3] / "shared")) / "badinputs"
MEMORY_MB = 700  # more than at the start, at any moment, in the service's own process
TOGETHER = 20  # bad cases that come with one good study
SLICES = 48
Case = dict[str, str]


def cases(expected: str = "not_analysed") -> list[Case]:
    if not (ROOT / "cases.tsv").is_file():
        return []
    with (ROOT / "cases.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row for row in rows if row["expected"] == expected]


def few(every: list[Case]) -> list[Case]:
    """A case of each kind that a receiver can tell apart."""
    named = ("truncated_slice", "mixed_patient", "not_ct", "element_length_4g", "preamble_elf")
    chosen = [c for c in every if any(name in c["case"] for name in named)]
    fuzz = [c for c in every if c["case"].startswith("fuzz/")]
    return [*chosen, *fuzz[::40]]


@pytest.fixture(scope="module")
def good() -> Seed:
    if not ROOT.is_dir():
        pytest.skip(f"test data not found at {ROOT}: set TRIAGE_TEST_DATA")
    return seed_of(sorted((ROOT / "geometry" / "good").rglob("*.dcm")))


@pytest.fixture
def at(good: Seed, tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "home", load=LOAD, max_bytes=400_000_000) as found:
        before = memory_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew (proc(5))
        yield found
        assert memory_mb("VmHWM") - before < MEMORY_MB


def memory_mb(what: str) -> int:
    """VmRSS: resident memory of this process; VmHWM: its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(what))


def everything_ended(at: House, seconds: float) -> dict[str, dict[str, Any]]:
    """StudyInstanceUID -> study, once none waits."""
    query = studies.Query(background=None, limit=500)

    def look() -> bool:
        with at.service.records.reading() as session:
            return all(s.status in studies.FINISHED for s in studies.newest(session, query))

    until(look, seconds, "every study has ended")
    found, offset = {}, 0
    while True:
        page = at.client.get("/api/v1/studies", params={"limit": 200, "offset": offset}).json()
        found |= {one["id"]: one for one in page["studies"]}
        offset += 200
        if offset >= page["total"]:
            return found


def refused_for(case: Case, found: dict[str, Any]) -> bool:
    """Not analysed, for a reason that the table allows, and without any verdict."""
    code = (found["reason"] or {}).get("code", "")
    allowed = case["reason"].startswith("any") or code in case["reason"]
    return (
        found["status"] in ("not_analysed", "not_applicable") and allowed and not found["targets"]
    )


def all_through(at: House, name: str, chosen: list[Case], good: Seed) -> dict[str, int]:
    """Each case alone, then all with good studies among them; raises where one is judged."""
    send, figures = ENTRANCES[name], {"taken": 0, "refused": 0}
    dice = random.Random(name)  # noqa: S311 - an order, no secret
    of_case: dict[str, Case] = {}
    for case in chosen:
        before = set(_ids(at))
        taken = send(at, files_of(ROOT / case["case"]))
        figures["taken" if taken else "refused"] += 1
        of_case |= {study: case for study in _ids(at) if study not in before}
    ended = everything_ended(at, 1800)
    wrong = {
        f"{case['case']}: {ended[study]['status']} {ended[study]['reason']}"
        for study, case in of_case.items()
        if not refused_for(case, ended[study])
    }
    assert wrong == set()
    for first in range(0, len(chosen), TOGETHER):
        copy = good.copy(dice)
        bad = [
            d for case in chosen[first : first + TOGETHER] for d in files_of(ROOT / case["case"])
        ]
        mixed = [*copy.slices, *bad]
        dice.shuffle(mixed)
        send(at, mixed)
        everything_ended(at, 300)
        found = at.client.get(f"/api/v1/studies/{copy.study_uid}").json()
        assert (found["status"], found["instances"]) == ("analysed", SLICES), found["reason"]
        assert found["report"]["series"][0]["slices"] == SLICES
    still_up(at)
    return figures


def _ids(at: House) -> list[str]:
    with at.service.records.reading() as session:
        query = studies.Query(background=None, limit=500)
        return [study.id for study in studies.newest(session, query)]


def still_up(at: House) -> None:
    assert at.client.get("/healthz").status_code == 200
    assert set(at.service.intake.checks().values()) == {"ok"}
    assert list(at.service.files.incoming.iterdir()) == []
    with at.service.records.reading() as session:
        quarantine.count_by_reason(session)


def test_some_through_each_entrance(at: House, good: Seed) -> None:
    chosen = few(cases())
    for number, name in enumerate(ENTRANCES):
        assert sum(all_through(at, name, chosen[number :: len(ENTRANCES)], good).values()) >= 2


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ENTRANCES)
def test_all_through_each_entrance(at: House, name: str, good: Seed) -> None:
    print(f"\n{name}: {all_through(at, name, cases(), good)}")


def run_beside_good(chosen: list[Case], folder: Path) -> dict[str, int]:
    """`triage run` on a copy of the good study with one bad case in it."""
    settings, said = Settings(home=folder / "home", threads=1), {}
    with warm_child():
        control = Control.of(ROOT / "geometry" / "good", settings)
        for case in chosen:
            work = folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(ROOT / "geometry" / "good", work / "good")
            for number, data in enumerate(files_of(ROOT / case["case"])):
                (work / f"bad{number:04d}.dcm").write_bytes(data)
            answer = judged(work, settings, control)
            said[answer] = said.get(answer, 0) + 1
    return said


def test_some_inside_a_good_folder(good: Seed, tmp_path: Path) -> None:
    said = run_beside_good(few(cases())[:6], tmp_path)
    assert set(said) <= {*REASONS, "same"}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_inside_a_good_folder(good: Seed, tmp_path: Path) -> None:
    said = run_beside_good(cases(), tmp_path)
    print(f"\ntriage run: {said}")
    assert set(said) <= {*REASONS, "same"}


def test_none_passes_for_a_bundle(good: Seed, tmp_path: Path) -> None:
    """As manifest, as cutoffs or as weights with a manifest that lists them."""
    whole = find_bundle("reference")
    listed = json.loads((whole / MANIFEST).read_bytes())["files"]
    for number, case in enumerate(cases()[::4]):
        data = files_of(ROOT / case["case"])[0]
        bad = tmp_path / str(number)
        bad.mkdir()
        (bad / MANIFEST).write_bytes(data if number % 2 else (whole / MANIFEST).read_bytes())
        for name in listed:
            (bad / name).parent.mkdir(parents=True, exist_ok=True)
            (bad / name).write_bytes(data)
        with pytest.raises(BundleError):
            verify(find_bundle(bad))
