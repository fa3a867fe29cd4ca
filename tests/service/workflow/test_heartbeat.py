"""Who is taken for dead: by one's own clock, never by the time of day."""

from __future__ import annotations

from triage.service.records.queue import STOPPED, Beat
from triage.service.workflow.heartbeat import Watch


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_worker_whose_pulse_stops_is_dead_after_the_time() -> None:
    clock = Clock()
    watch = Watch(20.0, clock)
    for number in range(1, 11):
        watch.look([Beat("a", "x", number), Beat("b", "y", 7)])
        clock.now += 2.0
    assert watch.dead(["a", "b"]) == []
    clock.now += 1.0
    watch.look([Beat("a", "x", 11), Beat("b", "y", 7)])
    assert watch.dead(["a", "b"]) == ["b"]
    assert watch.alive() == ["a"]


def test_a_first_look_condemns_nobody() -> None:
    clock = Clock()
    watch = Watch(20.0, clock)
    watch.look([Beat("a", "x", 99)])
    assert watch.dead(["a", "never seen"]) == []
    clock.now += 20.5
    assert watch.dead(["a", "never seen"]) == ["a", "never seen"]


def test_a_clean_stop_frees_at_once_and_a_new_start_lives_again() -> None:
    watch = Watch(20.0, Clock())
    watch.look([Beat("a", "x", STOPPED)])
    assert watch.dead(["a"]) == ["a"]
    watch.look([Beat("a", "z", 1)])
    assert watch.dead(["a"]) == []
