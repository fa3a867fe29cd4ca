"""Who goes first, and how long the others wait at most."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from triage.service.workflow.order import PATIENCE, START, WINDOW, Rank, turn

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ANALYSIS_S = 20.0
ranks = st.sampled_from(list(Rank))
seconds = st.integers(0, 10**6)


@given(st.lists(st.tuples(ranks, seconds), min_size=1))
def test_a_turn_fits_the_queue(entries: list[tuple[Rank, int]]) -> None:
    for rank, later in entries:
        assert 1 <= turn(rank, NOW + timedelta(seconds=later)) < 2**31
    assert turn(Rank.STAT, START - timedelta(days=9000)) == 1
    assert turn(Rank.COHORT, START + timedelta(days=90000)) == 2**31 - 1


@given(ranks, seconds, seconds)
def test_within_a_class_the_first_goes_first(rank: Rank, one: int, two: int) -> None:
    first, second = sorted((one, two))
    assert turn(rank, at(first)) <= turn(rank, at(second))


@given(ranks, ranks, seconds, seconds)
def test_a_higher_class_goes_first_until_the_patience_is_over(
    high: Rank, low: Rank, since: int, newcomer: int
) -> None:
    if high >= low or newcomer < since:
        return
    waited, patience = newcomer - since, PATIENCE[low] - PATIENCE[high]
    if waited < patience:
        assert turn(high, at(newcomer)) < turn(low, at(since))
    elif waited > patience:
        assert turn(low, at(since)) < turn(high, at(newcomer))


def at(second: int) -> datetime:
    return NOW + timedelta(seconds=second)


class Line:
    """The whole queue in small: one worker, windows, turns; a study is (rank, arrival)."""

    def __init__(self) -> None:
        self.time = 0.0
        self.records: list[tuple[Rank, float]] = []
        self.queue: list[tuple[int, Rank, float]] = []
        self.waited: dict[Rank, list[float]] = {rank: [] for rank in Rank}

    def feed(self) -> None:
        for rank, window in WINDOW.items():
            standing = sum(entry[1] is rank for entry in self.queue)
            oldest = sorted(s for s in self.records if s[0] is rank and s[1] <= self.time)
            for study in oldest[: max(0, window - standing)]:
                self.records.remove(study)
                self.queue.append((turn(rank, at(int(self.time))), *study))

    def work(self, until: float) -> None:
        while self.time < until:
            self.feed()
            if self.queue:
                self.queue.sort()
                _, rank, arrival = self.queue.pop(0)
                self.waited[rank].append(self.time - arrival)
            self.time += ANALYSIS_S


def test_a_cohort_is_not_starved_by_more_live_studies_than_can_be_done() -> None:
    line = Line()
    line.records += [(Rank.COHORT, 0.0)] * 100
    line.records += [(Rank.LIVE, float(second)) for second in range(0, 36000, 15)]  # 133 % load
    line.work(36000)
    in_turn = [PATIENCE[Rank.COHORT] * (i // WINDOW[Rank.COHORT] + 1) for i in range(100)]
    done = line.waited[Rank.COHORT]
    assert len(done) >= 2 * (36000 // int(PATIENCE[Rank.COHORT])) - 2
    slack = 2 * WINDOW[Rank.LIVE] * ANALYSIS_S + PATIENCE[Rank.LIVE]
    assert all(waited <= bound + slack for waited, bound in zip(done, in_turn, strict=False))


def test_a_cohort_of_thousands_that_waited_for_days_hardly_delays_a_live_study() -> None:
    line = Line()
    line.records += [(Rank.COHORT, -5 * 86400.0)] * 5000
    line.records += [(Rank.LIVE, float(second)) for second in range(7, 36000, 600)]
    line.work(36000)
    assert max(line.waited[Rank.LIVE]) <= (WINDOW[Rank.COHORT] + 1) * ANALYSIS_S
    assert sum(line.waited[Rank.LIVE]) / len(line.waited[Rank.LIVE]) <= 1.5 * ANALYSIS_S


def test_stat_waits_for_hardly_more_than_the_study_under_way() -> None:
    line = Line()
    line.records += [(Rank.LIVE, -86400.0)] * 500  # all that came while the service was down
    line.records += [(Rank.STAT, float(second)) for second in range(100, 20000, 1000)]
    line.work(20000)
    assert max(line.waited[Rank.STAT]) <= (WINDOW[Rank.LIVE] + 1) * ANALYSIS_S
