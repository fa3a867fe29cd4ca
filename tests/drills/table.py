"""Which drills there are: functions of this package, by rounds, and tests that are drills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.drills import clocks, databases, kills, senders, weights

Drill = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Rounds:
    """A drill of this package. `share`: its rounds for each round of `scripts/drills`."""

    what: str
    run: Drill
    share: float
    piece: int  # rounds on one home


@dataclass(frozen=True)
class Tests:
    """Tests that hold the drill already."""

    what: str
    nodes: tuple[str, ...]
    long: bool = False


KILLS = "kill -9 of service, child or both while senders send"
ROUNDS: dict[str, Rounds] = {
    "kills": Rounds(KILLS, kills.kill_rounds, 1.0, 25),
    "cut": Rounds("senders that break off or fall silent", senders.breaking_off, 1.0, 25),
    "late": Rounds("sent three times in any order, slices late", senders.again_and_late, 0.5, 25),
    "locked": Rounds("database locked by another program", databases.locked, 0.2, 10),
    "vanished": Rounds("database moved away, and put back", databases.vanished, 0.2, 10),
    "clock": Rounds("clock jumps by hours, days, years", clocks.jumps, 0.5, 25),
    "weights": Rounds("weights exchanged, cut, damaged", weights.swapped, 0.2, 10),
}
_E2E, _WORK, _IN = (
    "tests/e2e/service/test_drills.py",
    "tests/service/workflow",
    "tests/service/intake",
)
TESTS: dict[str, Tests] = {
    "full disk": Tests(
        "full disk: refused (0xA700, 507), nothing half written, goes on by itself",
        (
            f"{_IN}/test_durability.py::test_a_full_disk_refuses_leaves_nothing_and_recovers",
            f"{_IN}/test_durability.py::test_a_full_disk_is_out_of_resources_for_a_sender",
            f"{_E2E}::test_a_full_disk",
        ),
        long=True,
    ),
    "locked for a minute": Tests(
        "database locked for a minute: nothing acknowledged, the list still shows",
        (f"{_E2E}::test_a_database_that_is_locked_for_a_minute",),
        long=True,
    ),
    "senders": Tests(
        "50 senders at once, 60 studies: none refused, none lost",
        (f"{_E2E}::test_50_senders_at_once[quick]",),
        long=True,
    ),
    "pdus": Tests(
        "senders that claim gigabytes, send slowly, too many at once",
        (
            f"{_IN}/test_dimse.py::test_a_pdu_that_claims_four_gigabytes_ends_the_connection",
            f"{_IN}/test_dimse.py::test_whoever_sends_slowly_or_nothing_is_cut_off",
            f"{_IN}/test_dimse.py::test_a_message_without_end_goes_to_the_disk_and_has_one",
            f"{_IN}/test_dimse.py::test_more_associations_than_allowed_are_rejected_in_the_protocol",
        ),
    ),
    "decoder": Tests(
        "decoder that crashes, hangs or takes memory: a reason, and the next is fine",
        (
            "tests/dicom/test_child.py",
            "tests/e2e/test_reader_dies.py::test_killed_from_outside",
            "tests/e2e/test_reader_dies.py::test_too_much_memory_or_time",
        ),
    ),
    "child": Tests(
        "analysing process that crashes, hangs, takes memory, is killed: one retry, then a reason",
        (f"{_WORK}/test_child.py", f"{_WORK}/test_mishaps.py"),
    ),
    "workers": Tests(
        "workers that are killed, frozen, stopped: another takes over, nothing is told twice",
        (f"{_WORK}/test_takeover.py",),
        long=True,
    ),
    "bad inputs": Tests(
        "some malformed inputs through every entrance; all of them: scripts/bad-inputs",
        ("tests/e2e/test_bad_entrances.py",),
    ),
}
